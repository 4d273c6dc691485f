/* Paged causal attention in bfloat16, scores and sums in float32.
 *
 * 8-bit K and V become bfloat16, which represents their values exactly, as they are loaded. Their scales are applied in
 * float32: those of K to the scores, those of V to the probabilities.
 *
 * Query rows are pairs (query token, query head) of one KV head; up to 32 of them, side by side in the lanes of two
 * vectors, form a tile, so that K and V are read once for all of them and softmax never adds across lanes:
 *
 *     scores [token][lane] = K [token][d] . Q [d][lane]        tokens are the rows of `multiply`
 *     out    [lane][d]    += P [lane][token] . V [token][d]    lanes are
 *
 * A tile processes its tokens a segment at a time with online softmax (Milakov and Gimelshein 2018). A decode's tokens are
 * divided into splits of fixed size, merged in order, so that its result does not depend on the rest of the batch. */
#include "attention_tokens.h"

#include <string.h>

/* A thread's working memory for one item. What is loaded of K and V stays for the next tiles of the same split. */
struct tile {
    const char *keys[SEGMENT]; /* K of each token of a segment */
    const char *next[SEGMENT]; /* K of a decode's tokens after those, of this item or of the next one */
    int32_t q[128 * TILE];     /* [head_dim / 2][lane], pairs of bfloat16; head_dim <= 256 */
    float scores[(SEGMENT + LANES) * TILE];
    unit p[SEGMENT / 2 * TILE];          /* [pair of tokens][lane] */
    unit transposed[SEGMENT / 2 * TILE]; /* for AMX: [lane][pair of tokens] */
    unit k[SPLIT * 128];                 /* K of some tokens, if it is not read in place */
    int32_t v[SPLIT / 2 * 256];          /* segments, each [head_dim / 32][pair of tokens][32 columns] */
    float key_scales[SPLIT], value_scales[SPLIT];
    float out[TILE * 256]; /* [lane][columns] */
    float maximum[TILE], sum[TILE], rescale[TILE];
    int32_t position[TILE];
    /* Behind the arrays, which begin at cache lines as the tile does. */
    struct place at;     /* the item that `loaded` belongs to */
    long loaded, offset; /* tokens of its split in k, v and the scales; where the segment's first token is there */
};

/* Q of a tile as [head_dim / 2][lane], and each lane's position; lanes after the last row repeat it. */
static void load_queries(const struct attention *a, struct place at, struct tile *t) {
    long pairs = a->head_dim / 2, before = a->context_lengths[at.sequence] - at.num_queries;
    for (long lane = 0; lane < TILE; lane += LANES) {
        const bf16 *rows[LANES];
        for (long i = 0; i < LANES; i++) {
            long row = at.first_row + (lane + i < at.rows ? lane + i : at.rows - 1), query = row / a->group;
            t->position[lane + i] = before + query;
            rows[i] = a->q + (at.first_query + query) * a->ldq + (at.head * a->group + row % a->group) * a->head_dim;
        }
        for (long k = 0; k < pairs; k += LANES) {
            ivec x[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) x[i] = iload_first(rows[i] + 2 * k, pairs - k);
            transpose(x);
            for (int i = 0; i < LANES && k + i < num_units(a); i++) istore(t->q + (k + i) * TILE + lane, x[i]);
        }
    }
}

/* The segments that are loaded once for all tiles of the sequence: the first of this head, or -1 if each tile loads its own. */
static long shared_segments(const struct plan *p, struct place at) {
    long base = p->first_segment[at.sequence], segments = ceil_div(p->a.context_lengths[at.sequence], SEGMENT);
    return base < p->first_segment[at.sequence + 1] ? base + at.head * segments : -1;
}

/* K of a segment as units: loaded for all tiles, or for this one and the next. */
static const unit *keys_of(const struct plan *p, struct place at, const struct tile *t, long start) {
    long shared = shared_segments(p, at);
    if (shared >= 0) return p->keys + (shared + start / SEGMENT) * SEGMENT * key_units(&p->a);
    return t->k + t->offset * key_units(&p->a);
}

/* Whether `multiply` reads the K of `count` tokens from the pages directly; AMX reads whole tiles only. */
static int is_in_place(const struct attention *a, long count) {
    if (!IN_PLACE || is_8_bit(&a->pages)) return 0;
    return !HAS_TILES || (count % LANES == 0 && 2 * num_units(a) == a->head_dim);
}

/* scores [token][lane] of `count` tokens from `start`. */
static void score(const struct plan *p, struct place at, struct tile *t, long start, long count) {
    const struct attention *a = &p->a;
    const unit *loaded = is_8_bit(&a->pages) ? keys_of(p, at, t, start) : 0;
    for (long token = 0, run; token < count; token += run) {
        long in_block = a->pages.block_size - (start + token) % a->pages.block_size, left = count - token;
        run = in_block < left && !is_8_bit(&a->pages) ? in_block : left;
        long step = HAS_TILES ? MAX_ROWS : ceil_div(run, ceil_div(run, MAX_ROWS));
        for (long i = token; i < token + run; i += step) {
            long rows = token + run - i < step ? token + run - i : step;
            int in_place = is_in_place(a, rows);
            if (!in_place && !loaded) load_keys(a, t->keys + i, t->k, rows);
            struct product product = {
                .x = in_place ? (const unit *)t->keys[i]
                     : loaded ? loaded + i * key_units(a)
                              : t->k,
                .column = 1,
                .row = in_place ? a->num_kv_heads * a->head_dim : key_units(a),
                .w = t->q,
                .ldw = TILE,
                .num_units = num_units(a),
                .c = t->scores + i * TILE,
                .ldc = TILE,
            };
            multiply(&product, rows, at.rows > LANES ? 2 : 1);
        }
    }
}

/* log2(e) / sqrt(head_dim): probabilities are 2 ** (score * log2_scale - maximum). */
INLINE vec log2_scale(const struct attention *a) { return splat(1.44269504f / __builtin_sqrtf(a->head_dim)); }

/* Scales the scores, adds ALiBi to them and masks them; updates each lane's scaled maximum, and its sum and rescale factor with it. */
INLINE void mask_scores(const struct attention *a, struct place at, struct tile *t, long start, long count, long lane,
                        const int has_scales) {
    ivec position = iload(t->position + lane);
    vec most = splat(-1e30f), slope = zero();
    if (a->slopes) {
        float slopes[LANES];
        for (long i = 0; i < LANES; i++) slopes[i] = a->slopes[at.head * a->group + (at.first_row + lane + i) % a->group];
        slope = load(slopes);
    }
    int is_masked = start + count - 1 > t->position[0], has_slopes = a->slopes != 0;
    for (long i = 0; i < count; i++) {
        vec s = load(t->scores + i * TILE + lane);
        if (has_scales) s = mul(s, splat(t->key_scales[t->offset + i]));
        /* transformers rounds the position, then ALiBi, to bfloat16, and adds it before scaling. */
        if (has_slopes) s = add(s, rounded(mul(slope, rounded(splat(start + i)))));
        if (is_masked) {
            s = where_at_most(isplat(start + i), position, s, splat(-1e30f));
        }
        if (has_slopes | is_masked | has_scales) store(t->scores + i * TILE + lane, s);
        most = largest(most, s);
    }
    vec before = load(t->maximum + lane);
    vec maximum = largest(before, mul(most, log2_scale(a)));
    vec rescale = exp2_of(sub(before, maximum));
    store(t->rescale + lane, rescale);
    store(t->sum + lane, mul(load(t->sum + lane), rescale));
    store(t->maximum + lane, maximum);
}

/* p = 2 ** (scaled score - maximum), times the scale of V if it has one, two tokens of a lane side by side; prefetches
 * `num_next` tokens of `t->next`. */
INLINE void exponentiate(const struct attention *a, struct tile *t, long count, long lane, long num_next,
                         const int has_scales) {
    vec maximum = load(t->maximum + lane), sum = load(t->sum + lane), scale = log2_scale(a);
    long i = 0;
    for (; i < count; i += 2) {
        const float *scores = t->scores + i * TILE + lane;
        vec even = exp2_of(fmsub(load(scores), scale, maximum)), odd = zero();
        if (i + 1 < count) odd = exp2_of(fmsub(load(scores + TILE), scale, maximum));
        sum = add(sum, add(even, odd));
        if (has_scales) {
            even = mul(even, splat(t->value_scales[t->offset + i]));
            if (i + 1 < count) odd = mul(odd, splat(t->value_scales[t->offset + i + 1]));
        }
        store_pairs(t->p + i / 2 * TILE + lane, even, odd);
        if (i < num_next) prefetch_token(a, t->next[i]);
        if (i + 1 < num_next) prefetch_token(a, t->next[i + 1]);
    }
    for (; i < num_next; i++) prefetch_token(a, t->next[i]);
    store(t->sum + lane, sum);
}

/* Both, for `lanes`; compiled with scales and without. */
INLINE void update_softmax_as(const struct attention *a, struct place at, struct tile *t, long start, long count, long lanes,
                              long num_next, const int has_scales) {
    for (long lane = 0; lane < lanes; lane += LANES) {
        mask_scores(a, at, t, start, count, lane, has_scales);
        exponentiate(a, t, count, lane, lane ? 0 : num_next, has_scales);
    }
}

static void update_softmax(const struct attention *a, struct place at, struct tile *t, long start, long count, long lanes,
                           long num_next) {
    if (is_8_bit(&a->pages))
        update_softmax_as(a, at, t, start, count, lanes, num_next, 1);
    else
        update_softmax_as(a, at, t, start, count, lanes, num_next, 0);
}

/* p as [lane][pair of tokens], padded with zeros. */
static void transpose_probabilities(struct tile *t, long count, long lanes) {
    for (long lane = 0; lane < lanes; lane += LANES)
        for (long pair = 0; pair < num_pairs(count); pair += LANES) {
            ivec x[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                x[i] = 2 * (pair + i) < count ? iload((int32_t *)(t->p + (pair + i) * TILE + lane)) : izero();
            transpose(x);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) istore((int32_t *)(t->transposed + (lane + i) * SEGMENT / 2 + pair), x[i]);
        }
}

/* Loads one of the segments that several tiles read: V into p->values, 8-bit K into p->keys. */
static void load_segment(void *args, long item) {
    const struct plan *p = args;
    long sequence = sequence_of(p->first_segment, p->a.num_sequences, item), context = p->a.context_lengths[sequence];
    long local = item - p->first_segment[sequence], segments = ceil_div(context, SEGMENT);
    long start = local % segments * SEGMENT, left = context - start;
    long count = left < SEGMENT ? left : SEGMENT;
    const char *keys[SEGMENT];
    find_keys(&p->a, (struct place){.sequence = sequence, .head = local / segments}, start, count, keys);
    load_values(&p->a, keys, p->values + item * segment_size(&p->a), count);
    if (p->keys) load_keys(&p->a, keys, p->keys + item * SEGMENT * key_units(&p->a), count);
}

/* V of a segment, likewise. */
static const int32_t *values_of(const struct plan *p, struct place at, const struct tile *t, long start) {
    long shared = shared_segments(p, at);
    if (shared >= 0) return p->values + (shared + start / SEGMENT) * segment_size(&p->a);
    return t->v + t->offset / SEGMENT * segment_size(&p->a);
}

/* Loads what this tile reads of a segment, unless the tile before did: V, and 8-bit K, if they are not loaded for all tiles. */
static void load_tokens(const struct plan *p, struct place at, struct tile *t, long start, long count) {
    const struct attention *a = &p->a;
    int is_kept = at.num_queries == 1 && a->group > TILE, is_loaded = shared_segments(p, at) >= 0;
    t->offset = is_kept ? start - at.start : 0;
    if (t->offset < t->loaded && !is_8_bit(&a->pages)) find_keys(a, at, start, count, t->keys);
    if (t->offset < t->loaded) return;
    find_keys(a, at, start, count, t->keys);
    if (is_8_bit(&a->pages)) {
        find_scales(a, at, start, count, t->key_scales + t->offset, t->value_scales + t->offset);
        if (!is_loaded) load_keys(a, t->keys, t->k + t->offset * key_units(a), count);
    }
    if (!is_loaded) load_values(a, t->keys, t->v + t->offset / SEGMENT * segment_size(a), count);
    if (is_kept) t->loaded = t->offset + count;
}

/* out = out * rescale + P . V. */
static void add_values(const struct attention *a, struct place at, struct tile *t, const int32_t *v, long count) {
    long width = ceil_div(a->head_dim, TILE) * TILE;
    long step = ceil_div(at.rows, ceil_div(at.rows, MAX_ROWS));
    for (long lane = 0; lane < at.rows; lane++)
        for (long n = 0; n < width; n += LANES) {
            float *out = t->out + lane * width + n;
            store(out, mul(load(out), splat(t->rescale[lane])));
        }
    for (long n = 0; n < width; n += TILE)
        for (long lane = 0; lane < at.rows; lane += step) {
            struct product product = {
                .x = HAS_TILES ? t->transposed + lane * (SEGMENT / 2) : t->p + lane,
                .row = HAS_TILES ? SEGMENT / 2 : 1,
                .column = HAS_TILES ? 1 : TILE,
                .w = v + n / TILE * (SEGMENT / 2) * TILE,
                .ldw = TILE,
                .num_units = num_pairs(count),
                .c = t->out + lane * width + n,
                .ldc = width,
                .accumulates = 1,
            };
            multiply(&product, at.rows - lane < step ? at.rows - lane : step, a->head_dim - n > LANES ? 2 : 1);
        }
}

/* Stores one lane's output, x / sum, as bfloat16. */
static void write_row(const struct attention *a, struct place at, long lane, const float *x, float sum) {
    long row = at.first_row + lane;
    bf16 *out = a->out + (at.first_query + row / a->group) * a->ldo + (at.head * a->group + row % a->group) * a->head_dim;
    for (long n = 0; n < a->head_dim; n += LANES) {
        vec y = mul(load(x + n), splat(1.0f / sum));
        store_bf16(out + n, y, a->head_dim - n);
    }
}

/* Whether two items read the same tokens of the same KV head. */
static int is_same_split(struct place a, struct place b) {
    return a.sequence == b.sequence && a.head == b.head && a.split == b.split;
}

/* K of the tokens that a decode reads after `start`, unless they are loaded: of this item, or the first of the next item.
 * Returns their count. */
static long find_next(const struct plan *p, long item, struct place at, long start, struct tile *t) {
    if (start >= at.stop) {
        if (item + 1 >= p->num_items) return 0;
        struct place next = place_of_item(p, item + 1);
        if (is_same_split(at, next)) return 0;
        at = next, start = at.start;
    } else if (start - at.start < t->loaded)
        return 0;
    if (at.num_queries > 1) return 0;
    long left = at.stop - start, count = left < SEGMENT ? left : SEGMENT;
    find_keys(&p->a, at, start, count, t->next);
    return count;
}

static void attend_item(const struct plan *p, long item, struct tile *t) {
    const struct attention *a = &p->a;
    struct place at = place_of_item(p, item);
    if (!is_same_split(at, t->at)) t->loaded = 0;
    t->at = at;
    long splits = at.num_splits, width = ceil_div(a->head_dim, TILE) * TILE, lanes = at.rows > LANES ? TILE : LANES;
    load_queries(a, at, t);
    for (long lane = 0; lane < TILE; lane++) t->maximum[lane] = -1e30f, t->sum[lane] = 0;
    memset(t->out, 0, at.rows * width * sizeof(float));
    for (long start = at.start; start < at.stop; start += SEGMENT) {
        long left = at.stop - start, count = left < SEGMENT ? left : SEGMENT;
        load_tokens(p, at, t, start, count);
        long num_next = find_next(p, item, at, start + count, t);
        score(p, at, t, start, count);
        update_softmax(a, at, t, start, count, lanes, num_next);
        if (HAS_TILES) transpose_probabilities(t, count, lanes);
        add_values(a, at, t, values_of(p, at, t, start), count);
    }
    if (splits == 1) {
        for (long lane = 0; lane < at.rows; lane++) write_row(a, at, lane, t->out + lane * width, t->sum[lane]);
        return;
    }
    float *partial = p->partials + item * p->partial_size;
    memcpy(partial, t->maximum, sizeof t->maximum);
    memcpy(partial + TILE, t->sum, sizeof t->sum);
    memcpy(partial + 2 * TILE, t->out, at.rows * width * sizeof(float));
}

static void attend_items(void *args, long item, long end) {
    struct tile *t = scratch(SCRATCH_TILE, sizeof(struct tile));
    t->at.sequence = -1;
    for (; item < end; item++) attend_item(args, item, t);
}

/* Merges the splits of one tile in order, each rescaled from its own maximum to the common one. */
static void merge_tile(void *args, long item) {
    const struct plan *p = args;
    const struct attention *a = &p->a;
    long sequence = sequence_of(p->first_tile, a->num_sequences, item), tile = item - p->first_tile[sequence];
    struct place at = place_of(a, sequence, tile, 0);
    if (at.num_splits == 1) return;
    long width = ceil_div(a->head_dim, TILE) * TILE;
    const float *partial = p->partials + (p->first_item[sequence] + tile) * p->partial_size;
    long step = num_tiles(a, sequence) * p->partial_size;
    for (long lane = 0; lane < at.rows; lane++) {
        float maximum = -1e30f, sum = 0, out[256] = {0};
        for (long i = 0; i < at.num_splits; i++) maximum = __builtin_fmaxf(maximum, partial[i * step + lane]);
        for (long i = 0; i < at.num_splits; i++) {
            const float *one = partial + i * step;
            float scale = __builtin_exp2f(one[lane] - maximum);
            sum += scale * one[TILE + lane];
            for (long n = 0; n < width; n++) out[n] += scale * one[2 * TILE + lane * width + n];
        }
        write_row(a, at, lane, out, sum);
    }
}

void attend(const struct attention *a, run_loop *run, void *args) {
    struct plan p = {.a = *a};
    long num_sequences = a->num_sequences;
    long *firsts = scratch(SCRATCH_PLAN, 3 * (num_sequences + 1) * sizeof(long)), has_splits = 0;
    long *first_item = firsts, *first_tile = firsts + num_sequences + 1;
    long *first_segment = firsts + 2 * (num_sequences + 1);
    first_item[0] = first_tile[0] = first_segment[0] = 0;
    for (long i = 0; i < num_sequences; i++) {
        long tiles = num_tiles(&p.a, i), splits = num_splits(&p.a, i);
        first_tile[i + 1] = first_tile[i] + tiles;
        first_item[i + 1] = first_item[i] + tiles * splits;
        first_segment[i + 1] = first_segment[i] + num_segments(&p.a, i);
        has_splits |= splits > 1;
    }
    p.num_items = first_item[num_sequences];
    p.first_item = first_item, p.first_tile = first_tile, p.first_segment = first_segment;
    p.partial_size = TILE * (2 + ceil_div(a->head_dim, TILE) * TILE);
    if (has_splits) p.partials = scratch(SCRATCH_SPLITS, first_item[num_sequences] * p.partial_size * sizeof(float));
    if (first_segment[num_sequences]) {
        p.values = scratch(SCRATCH_VALUES, first_segment[num_sequences] * segment_size(&p.a) * sizeof(int32_t));
        if (is_8_bit(&a->pages))
            p.keys = scratch(SCRATCH_KEYS, first_segment[num_sequences] * SEGMENT * key_units(&p.a) * sizeof(unit));
        parallel_for(first_segment[num_sequences], load_segment, &p);
    }
    run(&(struct loop){.range = attend_items, .args = &p, .count = p.num_items}, args);
    if (has_splits) parallel_for(first_tile[num_sequences], merge_tile, &p);
}

static void run_alone(const struct loop *loop, void *args) {
    (void)args;
    parallel_loops(0, loop);
}

/* q, out [tokens, num_kv_heads * group * head_dim], row strides ldq (even) and ldo; pages [blocks, block_size, 2,
 * num_kv_heads, head_dim] of `kind`, an enum kv_kind; block_tables [num_sequences, max_blocks]; query_starts [num_sequences + 1]: the first query
 * token of each sequence; context_lengths [num_sequences]: its tokens, the queries last; slopes [num_kv_heads * group],
 * or null. head_dim even and at most 256. */
EXPORT void peregrine_attention(const bf16 *q, long ldq, const void *pages, const int64_t *block_tables, long max_blocks,
                                long block_size, long kind, const int64_t *query_starts, const int64_t *context_lengths,
                                long num_sequences, long num_kv_heads, long group, long head_dim, const float *slopes,
                                bf16 *out, long ldo) {
    struct attention a = {
        .q = q,
        .ldq = ldq,
        .pages = {(char *)pages, kind, block_size, num_kv_heads, head_dim},
        .block_tables = block_tables,
        .max_blocks = max_blocks,
        .query_starts = query_starts,
        .context_lengths = context_lengths,
        .num_sequences = num_sequences,
        .num_kv_heads = num_kv_heads,
        .group = group,
        .head_dim = head_dim,
        .slopes = slopes,
        .out = out,
        .ldo = ldo,
    };
    attend(&a, run_alone, 0);
}
