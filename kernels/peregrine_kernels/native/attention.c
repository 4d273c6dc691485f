/* Paged causal attention in bfloat16, scores and sums in float32.
 *
 * Query rows are pairs (query token, query head) of one KV head; up to 32 of them, side by side in the lanes of two
 * vectors, form a tile, so that K and V are read once for all of them and softmax never adds across lanes:
 *
 *     scores [token][lane] = K [token][d] . Q [d][lane]        tokens are the rows of `multiply`
 *     out    [lane][d]    += P [lane][token] . V [token][d]    lanes are
 *
 * A tile runs through its tokens a segment at a time with a running maximum. A decode's tokens are divided into splits of
 * fixed size, merged in order: its result does not depend on its neighbours. */
#include "native.h"

#include <string.h>

enum {
    TILE = 2 * LANES,
    MAX_ROWS = MAX_SUMS / 2, /* of a product with both vectors of a tile */
    SEGMENT = 128,
    SPLIT = 512,
};

struct attention {
    const bf16 *q;
    long ldq;
    const bf16 *pages;
    const int64_t *block_tables;
    long max_blocks, block_size;
    const int64_t *query_starts, *context_lengths;
    long num_sequences, num_kv_heads, group, head_dim;
    const float *slopes;
    bf16 *out;
    long ldo;
};

struct plan {
    struct attention a;
    const long *first_item; /* [num_sequences + 1] */
    const long *first_tile; /* [num_sequences + 1]: tiles of all KV heads, without splits */
    const long *first_segment; /* [num_sequences + 1]: of V of all KV heads, where several tiles read it */
    int32_t *values;        /* such segments, each as `load_values` leaves it */
    float *partials;        /* one `struct partial` an item, where a sequence has several splits */
    long partial_size;
};

/* Where an item lies. */
struct place {
    long sequence, head, tile, split, num_splits;
    long first_row, rows;            /* of the sequence's query rows at this KV head */
    long first_query, num_queries;   /* of all query tokens; of the sequence */
    long start, stop;                /* of its tokens */
};

struct tile {
    int32_t q[128 * TILE]; /* [head_dim / 2][lane], pairs of bfloat16; head_dim <= 256 */
    float scores[SEGMENT * TILE];
    int32_t p[SEGMENT / 2 * TILE];  /* [pair of tokens][lane] */
    int32_t v[SEGMENT / 2 * 256];   /* [head_dim / 32][pair of tokens][32 columns] */
    float out[TILE * 256];          /* [lane][columns] */
    float maximum[TILE], sum[TILE], rescale[TILE];
    int32_t position[TILE];
};

static long ceil_div(long a, long b) { return (a + b - 1) / b; }

static long num_splits(const struct attention *a, long sequence) {
    long queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
    return queries == 1 ? ceil_div(a->context_lengths[sequence], SPLIT) : 1;
}

static long num_tiles(const struct attention *a, long sequence) {
    long queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
    return a->num_kv_heads * ceil_div(queries * a->group, TILE);
}

static long sequence_of(const long *firsts, long num_sequences, long item) {
    long low = 0, high = num_sequences;
    while (high - low > 1) {
        long middle = (low + high) / 2;
        if (firsts[middle] <= item)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The tile and split of one sequence; late tiles, which have most tokens to read, come first. */
static struct place place_of(const struct attention *a, long sequence, long tile, long split) {
    struct place at = {.sequence = sequence, .split = split, .num_splits = num_splits(a, sequence)};
    at.first_query = a->query_starts[sequence];
    at.num_queries = a->query_starts[sequence + 1] - at.first_query;
    long all_rows = at.num_queries * a->group, tiles = ceil_div(all_rows, TILE);
    at.head = tile / tiles;
    at.tile = tiles - 1 - tile % tiles;
    at.first_row = at.tile * TILE;
    at.rows = all_rows - at.first_row < TILE ? all_rows - at.first_row : TILE;
    long last_query = (at.first_row + at.rows - 1) / a->group;
    long end = a->context_lengths[sequence] - at.num_queries + last_query + 1;
    at.start = split * SPLIT;
    at.stop = at.num_splits > 1 && at.start + SPLIT < end ? at.start + SPLIT : end;
    return at;
}

static void load_queries(const struct attention *a, struct place at, struct tile *t) {
    long num_pairs = a->head_dim / 2, before = a->context_lengths[at.sequence] - at.num_queries;
    for (long lane = 0; lane < TILE; lane += LANES) {
        const bf16 *rows[LANES];
        for (long i = 0; i < LANES; i++) {
            long row = at.first_row + (lane + i < at.rows ? lane + i : at.rows - 1), query = row / a->group;
            t->position[lane + i] = before + query;
            rows[i] = a->q + (at.first_query + query) * a->ldq + (at.head * a->group + row % a->group) * a->head_dim;
        }
        for (long k = 0; k < num_pairs; k += LANES) {
            __m512i x[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) x[i] = _mm512_maskz_loadu_epi32(first(num_pairs - k), rows[i] + 2 * k);
            transpose(x);
            for (int i = 0; i < LANES && k + i < num_pairs; i++)
                _mm512_storeu_si512(t->q + (k + i) * TILE + lane, x[i]);
        }
    }
}

/* K of a token; V lies num_kv_heads * head_dim further on. */
static const bf16 *keys_of(const struct attention *a, struct place at, long token) {
    long block = a->block_tables[at.sequence * a->max_blocks + token / a->block_size];
    long slot = block * a->block_size + token % a->block_size;
    return a->pages + slot * 2 * a->num_kv_heads * a->head_dim + at.head * a->head_dim;
}

static void score(const struct attention *a, struct place at, struct tile *t, long start, long count) {
    long row = a->num_kv_heads * a->head_dim; /* 2 * that in bfloat16 */
    for (long token = start, run; token < start + count; token += run) {
        long in_block = a->block_size - token % a->block_size, left = start + count - token;
        run = in_block < left ? in_block : left;
        long step = ceil_div(run, ceil_div(run, MAX_ROWS));
        for (long i = 0; i < run; i += step) {
            struct product product = {
                .x = (const int32_t *)keys_of(a, at, token + i), .row = row, .unit = 1, .w = t->q,
                .ldw = TILE, .apart = LANES, .num_units = a->head_dim / 2, .c = t->scores + (token + i - start) * TILE, .ldc = TILE,
            };
            multiply(product, run - i < step ? run - i : step, at.rows > LANES ? 2 : 1);
        }
    }
}

/* Scores become 2 ** (score * log2_scale - maximum): 1 / sqrt(d), and e's logarithm. */
INLINE __m512 log2_scale(const struct attention *a) {
    return _mm512_set1_ps(1.44269504f / __builtin_sqrtf(a->head_dim));
}

/* scores -> scores + alibi, masked; the new maximum of each lane, scaled. */
static void mask_scores(const struct attention *a, struct place at, struct tile *t, long start, long count, long lane) {
    __m512i position = _mm512_loadu_si512(t->position + lane);
    __m512 largest = _mm512_set1_ps(-1e30f), slope = _mm512_setzero_ps();
    if (a->slopes) {
        float slopes[LANES];
        for (long i = 0; i < LANES; i++) slopes[i] = a->slopes[at.head * a->group + (at.first_row + lane + i) % a->group];
        slope = _mm512_loadu_ps(slopes);
    }
    int is_masked = start + count - 1 > t->position[0], has_slopes = a->slopes != 0;
    for (long i = 0; i < count; i++) {
        __m512 s = _mm512_loadu_ps(t->scores + i * TILE + lane);
        /* transformers rounds the position, then ALiBi, to bfloat16, and adds it before it scales. */
        if (has_slopes) s = _mm512_add_ps(s, rounded(_mm512_mul_ps(slope, rounded(_mm512_set1_ps(start + i)))));
        if (is_masked) {
            __mmask16 is_known = _mm512_cmple_epi32_mask(_mm512_set1_epi32(start + i), position);
            s = _mm512_mask_mov_ps(_mm512_set1_ps(-1e30f), is_known, s);
        }
        if (has_slopes | is_masked) _mm512_storeu_ps(t->scores + i * TILE + lane, s);
        largest = _mm512_max_ps(largest, s);
    }
    __m512 before = _mm512_loadu_ps(t->maximum + lane);
    __m512 maximum = _mm512_max_ps(before, _mm512_mul_ps(largest, log2_scale(a)));
    __m512 rescale = exp2_512(_mm512_sub_ps(before, maximum));
    _mm512_storeu_ps(t->rescale + lane, rescale);
    _mm512_storeu_ps(t->sum + lane, _mm512_mul_ps(_mm512_loadu_ps(t->sum + lane), rescale));
    _mm512_storeu_ps(t->maximum + lane, maximum);
}

/* p = 2 ** (scaled score - maximum), two tokens of a lane side by side. */
static void exponentiate(const struct attention *a, struct tile *t, long count, long lane) {
    __m512 maximum = _mm512_loadu_ps(t->maximum + lane), sum = _mm512_loadu_ps(t->sum + lane), scale = log2_scale(a);
    for (long i = 0; i < count; i += 2) {
        const float *scores = t->scores + i * TILE + lane;
        __m512 even = exp2_512(_mm512_fmsub_ps(_mm512_loadu_ps(scores), scale, maximum)), odd = _mm512_setzero_ps();
        if (i + 1 < count) odd = exp2_512(_mm512_fmsub_ps(_mm512_loadu_ps(scores + TILE), scale, maximum));
        sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
        __m512i pair = _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(odd)), 16);
        pair = _mm512_or_si512(pair, _mm512_cvtepu16_epi32(narrow(even)));
        _mm512_storeu_si512(t->p + i / 2 * TILE + lane, pair);
    }
    _mm512_storeu_ps(t->sum + lane, sum);
}

/* V of a segment in tiles of 32 columns, two tokens of a column side by side; past its end zeros. */
static void load_values(const struct attention *a, struct place at, int32_t *out, long start, long count) {
    long to_values = a->num_kv_heads * a->head_dim;
    for (long i = 0; i < count; i += 2) {
        const bf16 *even = keys_of(a, at, start + i) + to_values;
        const bf16 *odd = i + 1 < count ? keys_of(a, at, start + i + 1) + to_values : 0;
        for (long n = 0; n < a->head_dim; n += LANES) {
            __mmask16 mask = first(a->head_dim - n);
            __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, even + n));
            __m512i high = _mm512_setzero_si512();
            if (odd) high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, odd + n)), 16);
            int32_t *v = out + (n / TILE * (SEGMENT / 2) + i / 2) * TILE + n % TILE;
            _mm512_storeu_si512(v, _mm512_or_si512(low, high));
        }
    }
}

static long segment_size(const struct attention *a) { return SEGMENT / 2 * ceil_div(a->head_dim, TILE) * TILE; }

/* Of one sequence, where several tiles read them. */
static long num_segments(const struct attention *a, long sequence) {
    long tiles = num_tiles(a, sequence), queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
    if (queries == 1 || tiles == a->num_kv_heads) return 0;
    return a->num_kv_heads * ceil_div(a->context_lengths[sequence], SEGMENT);
}

static void load_segment(void *args, long item) {
    const struct plan *p = args;
    long sequence = sequence_of(p->first_segment, p->a.num_sequences, item), context = p->a.context_lengths[sequence];
    long local = item - p->first_segment[sequence], segments = ceil_div(context, SEGMENT);
    long start = local % segments * SEGMENT, left = context - start;
    struct place at = {.sequence = sequence, .head = local / segments};
    load_values(&p->a, at, p->values + item * segment_size(&p->a), start, left < SEGMENT ? left : SEGMENT);
}

/* V of a segment, loaded for all tiles or now for this one. */
static const int32_t *values_of(const struct plan *p, struct place at, struct tile *t, long start, long count) {
    long base = p->first_segment[at.sequence], segments = ceil_div(p->a.context_lengths[at.sequence], SEGMENT);
    if (base < p->first_segment[at.sequence + 1])
        return p->values + (base + at.head * segments + start / SEGMENT) * segment_size(&p->a);
    load_values(&p->a, at, t->v, start, count);
    return t->v;
}

static void add_values(const struct attention *a, struct place at, struct tile *t, const int32_t *v, long count) {
    long width = ceil_div(a->head_dim, TILE) * TILE, num_pairs = (count + 1) / 2;
    long step = ceil_div(at.rows, ceil_div(at.rows, MAX_ROWS));
    for (long lane = 0; lane < at.rows; lane++)
        for (long n = 0; n < width; n += LANES) {
            float *out = t->out + lane * width + n;
            _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_loadu_ps(out), _mm512_set1_ps(t->rescale[lane])));
        }
    for (long n = 0; n < width; n += TILE)
        for (long lane = 0; lane < at.rows; lane += step) {
            struct product product = {
                .x = t->p + lane, .row = 1, .unit = TILE, .w = v + n / TILE * (SEGMENT / 2) * TILE,
                .ldw = TILE, .apart = LANES, .num_units = num_pairs, .c = t->out + lane * width + n, .ldc = width,
                .accumulates = 1,
            };
            multiply(product, at.rows - lane < step ? at.rows - lane : step, a->head_dim - n > LANES ? 2 : 1);
        }
}

static void write_row(const struct attention *a, struct place at, long lane, const float *x, float sum) {
    long row = at.first_row + lane;
    bf16 *out = a->out + (at.first_query + row / a->group) * a->ldo + (at.head * a->group + row % a->group) * a->head_dim;
    for (long n = 0; n < a->head_dim; n += LANES) {
        __m512 y = _mm512_mul_ps(_mm512_loadu_ps(x + n), _mm512_set1_ps(1.0f / sum));
        _mm256_mask_storeu_epi16(out + n, first(a->head_dim - n), narrow(y));
    }
}

static void attend_item(void *args, long item) {
    const struct plan *p = args;
    const struct attention *a = &p->a;
    struct tile *t = scratch(SCRATCH_TILE, sizeof(struct tile));
    long sequence = sequence_of(p->first_item, a->num_sequences, item), splits = num_splits(a, sequence);
    long local = item - p->first_item[sequence], width = ceil_div(a->head_dim, TILE) * TILE;
    struct place at = place_of(a, sequence, local / splits, local % splits);
    long lanes = at.rows > LANES ? TILE : LANES;
    load_queries(a, at, t);
    for (long lane = 0; lane < TILE; lane++) t->maximum[lane] = -1e30f, t->sum[lane] = 0;
    memset(t->out, 0, at.rows * width * sizeof(float));
    for (long start = at.start; start < at.stop; start += SEGMENT) {
        long count = at.stop - start < SEGMENT ? at.stop - start : SEGMENT;
        score(a, at, t, start, count);
        for (long lane = 0; lane < lanes; lane += LANES) {
            mask_scores(a, at, t, start, count, lane);
            exponentiate(a, t, count, lane);
        }
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

/* The splits of one tile in order, each scaled from its own maximum to that of all. */
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
        for (long i = 0; i < at.num_splits; i++)
            maximum = __builtin_fmaxf(maximum, partial[i * p->partial_size + lane]);
        for (long i = 0; i < at.num_splits; i++) {
            const float *one = partial + i * p->partial_size;
            float scale = __builtin_exp2f(one[lane] - maximum);
            sum += scale * one[TILE + lane];
            for (long n = 0; n < width; n++) out[n] += scale * one[2 * TILE + lane * width + n];
        }
        write_row(a, at, lane, out, sum);
    }
}

/* q, out [tokens, num_kv_heads * group * head_dim], row strides ldq (even) and ldo; pages [blocks, block_size, 2,
 * num_kv_heads, head_dim]; block_tables [num_sequences, max_blocks]; query_starts [num_sequences + 1]: the first query
 * token of each sequence; context_lengths [num_sequences]: its tokens, the queries last; slopes [num_kv_heads * group],
 * or null. head_dim even and at most 256. */
EXPORT void peregrine_attention(const bf16 *q, long ldq, const bf16 *pages, const int64_t *block_tables, long max_blocks,
                                long block_size, const int64_t *query_starts, const int64_t *context_lengths,
                                long num_sequences, long num_kv_heads, long group, long head_dim, const float *slopes,
                                bf16 *out, long ldo) {
    struct plan p = {.a = {q, ldq, pages, block_tables, max_blocks, block_size, query_starts, context_lengths,
                           num_sequences, num_kv_heads, group, head_dim, slopes, out, ldo}};
    long *firsts = scratch(SCRATCH_INPUT, 3 * (num_sequences + 1) * sizeof(long)), has_splits = 0;
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
    p.first_item = first_item, p.first_tile = first_tile, p.first_segment = first_segment;
    p.partial_size = TILE * (2 + ceil_div(head_dim, TILE) * TILE);
    if (has_splits) p.partials = scratch(SCRATCH_SPLITS, first_item[num_sequences] * p.partial_size * sizeof(float));
    if (first_segment[num_sequences]) {
        p.values = scratch(SCRATCH_VALUES, first_segment[num_sequences] * segment_size(&p.a) * sizeof(int32_t));
        parallel_for(first_segment[num_sequences], load_segment, &p);
    }
    parallel_for(first_item[num_sequences], attend_item, &p);
    if (has_splits) parallel_for(first_tile[num_sequences], merge_tile, &p);
}
