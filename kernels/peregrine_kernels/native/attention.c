/* Paged causal attention in bfloat16, scores and sums in float32.
 *
 * Query rows are pairs (query token, query head) of one KV head; up to 32 of them, side by side in the lanes of two
 * vectors, form a tile, so that K and V are read once for all of them and softmax never adds across lanes:
 *
 *     scores [token][lane] = K [token][d] . Q [d][lane]        tokens are the rows of `multiply`
 *     out    [lane][d]    += P [lane][token] . V [token][d]    lanes are
 *
 * A tile processes its tokens a segment at a time with online softmax (Milakov and Gimelshein 2018). A decode's tokens are
 * divided into splits of fixed size, merged in order, so that its result does not depend on the rest of the batch. */
#include "attention_plan.h"

#include <string.h>

enum { LINE = 32 /* bfloat16 of a cache line */ };

/* A thread's working memory for one item. */
struct tile {
    const bf16 *keys[SEGMENT]; /* K of each token of a segment */
    const bf16 *next[SEGMENT]; /* K of a decode's tokens after those, of this item or of the next one */
    int32_t q[128 * TILE];     /* [head_dim / 2][lane], pairs of bfloat16; head_dim <= 256 */
    float scores[(SEGMENT + LANES) * TILE];
    unit p[SEGMENT / 2 * TILE];          /* [pair of tokens][lane] */
    unit transposed[SEGMENT / 2 * TILE]; /* for AMX: [lane][pair of tokens] */
    unit k[MAX_ROWS * 128];              /* K of some tokens, if it is not read in place */
    int32_t v[SEGMENT / 2 * 256];        /* [head_dim / 32][pair of tokens][32 columns] */
    float out[TILE * 256];               /* [lane][columns] */
    float maximum[TILE], sum[TILE], rescale[TILE];
    int32_t position[TILE];
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

/* The address of each token's K; its V lies num_kv_heads * head_dim elements further on. */
static void find_keys(const struct attention *a, struct place at, long start, long count, const bf16 **keys) {
    long step = 2 * a->num_kv_heads * a->head_dim, slot = start % a->block_size;
    const int64_t *block = a->block_tables + at.sequence * a->max_blocks + start / a->block_size;
    for (long i = 0; i < count; i++) {
        keys[i] = a->pages + (*block * a->block_size + slot) * step + at.head * a->head_dim;
        if (++slot == a->block_size) slot = 0, block++;
    }
}

/* Prefetches K and V of a token: a block of pages is too short for the hardware prefetcher to detect the stream. */
INLINE void prefetch_token(const struct attention *a, const bf16 *key) {
    long to_values = a->num_kv_heads * a->head_dim;
    for (long n = 0; n < a->head_dim; n += LINE) {
        _mm_prefetch((const char *)(key + n), _MM_HINT_T1);
        _mm_prefetch((const char *)(key + to_values + n), _MM_HINT_T1);
    }
}

/* Loads K of `count` tokens of `t->keys` from `first` on as units, padded with zeros. */
static const unit *load_keys(const struct attention *a, struct tile *t, long first, long count) {
    for (long i = 0; i < count; i++)
        for (long k = 0; k < num_units(a); k += LANES) {
            ivec x = iload_first(t->keys[first + i] + 2 * k, a->head_dim / 2 - k);
            store_units(t->k + i * num_units(a) + k, x, num_units(a) - k);
        }
    return t->k;
}

/* Whether `multiply` reads the K of `count` tokens from the pages directly; AMX reads whole tiles only. */
static int is_in_place(const struct attention *a, long count) {
    return IN_PLACE && (!HAS_TILES || (count % LANES == 0 && 2 * num_units(a) == a->head_dim));
}

/* scores [token][lane] of `count` tokens from `start`. */
static void score(const struct attention *a, struct place at, struct tile *t, long start, long count) {
    for (long token = 0, run; token < count; token += run) {
        long in_block = a->block_size - (start + token) % a->block_size, left = count - token;
        run = in_block < left ? in_block : left;
        long step = HAS_TILES ? MAX_ROWS : ceil_div(run, ceil_div(run, MAX_ROWS));
        for (long i = token; i < token + run; i += step) {
            long rows = token + run - i < step ? token + run - i : step;
            int in_place = is_in_place(a, rows);
            struct product product = {
                .x = in_place ? (const unit *)t->keys[i] : load_keys(a, t, i, rows),
                .column = 1,
                .row = in_place ? a->num_kv_heads * a->head_dim : num_units(a),
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

/* Adds ALiBi to the scores and masks them; updates each lane's scaled maximum, and its sum and rescale factor with it. */
static void mask_scores(const struct attention *a, struct place at, struct tile *t, long start, long count, long lane) {
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
        /* transformers rounds the position, then ALiBi, to bfloat16, and adds it before scaling. */
        if (has_slopes) s = add(s, rounded(mul(slope, rounded(splat(start + i)))));
        if (is_masked) {
            s = where_at_most(isplat(start + i), position, s, splat(-1e30f));
        }
        if (has_slopes | is_masked) store(t->scores + i * TILE + lane, s);
        most = largest(most, s);
    }
    vec before = load(t->maximum + lane);
    vec maximum = largest(before, mul(most, log2_scale(a)));
    vec rescale = exp2_of(sub(before, maximum));
    store(t->rescale + lane, rescale);
    store(t->sum + lane, mul(load(t->sum + lane), rescale));
    store(t->maximum + lane, maximum);
}

/* p = 2 ** (scaled score - maximum), two tokens of a lane side by side; prefetches `num_next` tokens of `t->next`. */
static void exponentiate(const struct attention *a, struct tile *t, long count, long lane, long num_next) {
    vec maximum = load(t->maximum + lane), sum = load(t->sum + lane), scale = log2_scale(a);
    long i = 0;
    for (; i < count; i += 2) {
        const float *scores = t->scores + i * TILE + lane;
        vec even = exp2_of(fmsub(load(scores), scale, maximum)), odd = zero();
        if (i + 1 < count) odd = exp2_of(fmsub(load(scores + TILE), scale, maximum));
        sum = add(sum, add(even, odd));
        store_pairs(t->p + i / 2 * TILE + lane, even, odd);
        if (i < num_next) prefetch_token(a, t->next[i]);
        if (i + 1 < num_next) prefetch_token(a, t->next[i + 1]);
    }
    for (; i < num_next; i++) prefetch_token(a, t->next[i]);
    store(t->sum + lane, sum);
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

/* V of a segment in tiles of 32 columns, two tokens of a column side by side; padded with zeros. */
static void load_values(const struct attention *a, const bf16 **keys, int32_t *out, long count) {
    long to_values = a->num_kv_heads * a->head_dim;
    for (long pair = ceil_div(count, 2); pair < num_pairs(count); pair++)
        for (long n = 0; n < a->head_dim; n += TILE)
            memset(out + (n / TILE * (SEGMENT / 2) + pair) * TILE, 0, TILE * sizeof(int32_t));
    for (long i = 0; i < count; i += 2) {
        const bf16 *even = keys[i] + to_values;
        const bf16 *odd = i + 1 < count ? keys[i + 1] + to_values : 0;
        for (long n = 0; n < a->head_dim; n += TILE)
            store_interleaved(out + (n / TILE * (SEGMENT / 2) + i / 2) * TILE, even + n, odd ? odd + n : 0, a->head_dim - n);
    }
}

/* Loads one of the segments of V that several tiles read into p->values. */
static void load_segment(void *args, long item) {
    const struct plan *p = args;
    long sequence = sequence_of(p->first_segment, p->a.num_sequences, item), context = p->a.context_lengths[sequence];
    long local = item - p->first_segment[sequence], segments = ceil_div(context, SEGMENT);
    long start = local % segments * SEGMENT, left = context - start;
    long count = left < SEGMENT ? left : SEGMENT;
    const bf16 *keys[SEGMENT];
    find_keys(&p->a, (struct place){.sequence = sequence, .head = local / segments}, start, count, keys);
    load_values(&p->a, keys, p->values + item * segment_size(&p->a), count);
}

/* V of a segment: from p->values if it was loaded for all tiles, otherwise loaded for this tile. */
static const int32_t *values_of(const struct plan *p, struct place at, struct tile *t, long start, long count) {
    const struct attention *a = &p->a;
    long base = p->first_segment[at.sequence], segments = ceil_div(a->context_lengths[at.sequence], SEGMENT);
    if (base < p->first_segment[at.sequence + 1])
        return p->values + (base + at.head * segments + start / SEGMENT) * segment_size(a);
    load_values(a, t->keys, t->v, count);
    return t->v;
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

/* K of the tokens that a decode reads after `start`: of this item, or the first of the next item. Returns their count. */
static long find_next(const struct plan *p, long item, struct place at, long start, const bf16 **keys) {
    if (start >= at.stop) {
        if (item + 1 >= p->num_items) return 0;
        at = place_of_item(p, item + 1);
        start = at.start;
    }
    if (at.num_queries > 1) return 0;
    long left = at.stop - start, count = left < SEGMENT ? left : SEGMENT;
    find_keys(&p->a, at, start, count, keys);
    return count;
}

static void attend_item(void *args, long item) {
    const struct plan *p = args;
    const struct attention *a = &p->a;
    struct tile *t = scratch(SCRATCH_TILE, sizeof(struct tile));
    struct place at = place_of_item(p, item);
    long splits = at.num_splits, width = ceil_div(a->head_dim, TILE) * TILE, lanes = at.rows > LANES ? TILE : LANES;
    load_queries(a, at, t);
    for (long lane = 0; lane < TILE; lane++) t->maximum[lane] = -1e30f, t->sum[lane] = 0;
    memset(t->out, 0, at.rows * width * sizeof(float));
    for (long start = at.start; start < at.stop; start += SEGMENT) {
        long left = at.stop - start, count = left < SEGMENT ? left : SEGMENT;
        find_keys(a, at, start, count, t->keys);
        long num_next = find_next(p, item, at, start + count, t->next);
        score(a, at, t, start, count);
        for (long lane = 0; lane < lanes; lane += LANES) {
            mask_scores(a, at, t, start, count, lane);
            exponentiate(a, t, count, lane, lane ? 0 : num_next);
        }
        if (HAS_TILES) transpose_probabilities(t, count, lanes);
        add_values(a, at, t, values_of(p, at, t, start, count), count);
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

/* Merges the splits of one tile in order, each rescaled from its own maximum to the common one. */
static void merge_tile(void *args, long item) {
    const struct plan *p = args;
    const struct attention *a = &p->a;
    long sequence = sequence_of(p->first_tile, a->num_sequences, item), tile = item - p->first_tile[sequence];
    struct place at = place_of(a, sequence, tile, 0);
    if (at.num_splits == 1) return;
    long width = ceil_div(a->head_dim, TILE) * TILE;
    const float *partial = p->partials + (p->first_item[sequence] + tile * at.num_splits) * p->partial_size;
    for (long lane = 0; lane < at.rows; lane++) {
        float maximum = -1e30f, sum = 0, out[256] = {0};
        for (long i = 0; i < at.num_splits; i++) maximum = __builtin_fmaxf(maximum, partial[i * p->partial_size + lane]);
        for (long i = 0; i < at.num_splits; i++) {
            const float *one = partial + i * p->partial_size;
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
        parallel_for(first_segment[num_sequences], load_segment, &p);
    }
    run(&(struct loop){.each = attend_item, .args = &p, .count = p.num_items}, args);
    if (has_splits) parallel_for(first_tile[num_sequences], merge_tile, &p);
}

static void run_alone(const struct loop *loop, void *args) {
    (void)args;
    parallel_loops(0, loop);
}

/* q, out [tokens, num_kv_heads * group * head_dim], row strides ldq (even) and ldo; pages [blocks, block_size, 2,
 * num_kv_heads, head_dim]; block_tables [num_sequences, max_blocks]; query_starts [num_sequences + 1]: the first query
 * token of each sequence; context_lengths [num_sequences]: its tokens, the queries last; slopes [num_kv_heads * group],
 * or null. head_dim even and at most 256. */
EXPORT void peregrine_attention(const bf16 *q, long ldq, const bf16 *pages, const int64_t *block_tables, long max_blocks,
                                long block_size, const int64_t *query_starts, const int64_t *context_lengths,
                                long num_sequences, long num_kv_heads, long group, long head_dim, const float *slopes,
                                bf16 *out, long ldo) {
    struct attention a = {
        .q = q,
        .ldq = ldq,
        .pages = pages,
        .block_tables = block_tables,
        .max_blocks = max_blocks,
        .block_size = block_size,
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
