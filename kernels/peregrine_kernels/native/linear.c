/* y = activation(x W^T + bias) + residual in bfloat16, sums in float32.
 *
 * W [N, K] is packed in tiles of 32 columns of y: [N / 32][K / 2][32][2], so that a thread reads it as one stream. Up to
 * 14 rows of x meet each weight while it passes through registers; further rows find its tile in the cache. */
#include "native.h"

enum {
    ROWS_AT_ONCE = 18 * MAX_ROWS, /* rows of x that are packed together: 1 MiB of them at K = 2048 */
    PAIRS_AT_ONCE = 1024,         /* of a tile: 128 KiB, an eighth of a core's second-level cache */
    MAX_DIRECT_ROWS = 8,          /* rows that are read in place: more of them, 4 KiB apart, evict one another */
    AHEAD = 4096,                 /* bytes of a weight that are prefetched while it is met for the first time */
};

enum activation { NONE, GELU, GELU_TANH, RELU, SILU };

struct linear {
    const bf16 *x;
    long ldx;
    const bf16 *w, *bias, *residual;
    bf16 *y;
    long rows, columns, depth, activation;
};

struct packed {
    struct linear l;
    const int32_t *x;
    long row, pair, step; /* of x, in pairs; rows of one `multiply` */
};

/* erf by Abramowitz and Stegun 7.1.26, to 1.5e-7. */
INLINE __m512 gelu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
    __m512 p = _mm512_set1_ps(1.061405429f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
    __m512 square = _mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), exp2_512(square)); /* 1 - erf(z) */
    __m512 half = _mm512_mul_ps(_mm512_set1_ps(0.5f), x);
    __m512 scaled = _mm512_mul_ps(half, tail);
    /* x / 2 (1 + erf): x - x / 2 * tail on the right, x / 2 * tail on the left */
    return _mm512_mask_sub_ps(scaled, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), x, scaled);
}

/* x / (1 + exp(-t)) */
INLINE __m512 times_sigmoid(__m512 x, __m512 t) {
    __m512 e = exp2_512(_mm512_mul_ps(_mm512_abs_ps(t), _mm512_set1_ps(-1.44269504f))); /* exp(-|t|) */
    __m512 of_negative = _mm512_div_ps(_mm512_mul_ps(x, e), _mm512_add_ps(_mm512_set1_ps(1.0f), e));
    return _mm512_mask_sub_ps(of_negative, _mm512_cmp_ps_mask(t, _mm512_setzero_ps(), _CMP_GE_OQ), x, of_negative);
}

/* x / 2 (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
INLINE __m512 gelu_tanh(__m512 x) {
    __m512 cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1.0f));
    return times_sigmoid(x, _mm512_mul_ps(_mm512_mul_ps(x, cubic), _mm512_set1_ps(2.0f * 0.79788456f)));
}

INLINE __m512 activate(__m512 x, enum activation activation) {
    switch (activation) {
        case GELU: return gelu(x);
        case GELU_TANH: return gelu_tanh(x);
        case RELU: return _mm512_max_ps(x, _mm512_setzero_ps());
        case SILU: return times_sigmoid(x, x);
        default: return x;
    }
}

/* The sums of one tile, from float32 to what leaves the layer. */
static void finish(const struct linear *l, const float *sums, long column) {
    for (long m = 0; m < l->rows; m++) {
        for (long n = column; n < column + TILE && n < l->columns; n += LANES) {
            __mmask16 mask = first(l->columns - n);
            __m512 y = _mm512_loadu_ps(sums + m * TILE + n - column);
            /* transformers rounds the product before it adds the bias. */
            if (l->bias) y = _mm512_add_ps(rounded(y), load_bf16_masked(mask, l->bias + n));
            y = activate(y, l->activation);
            if (l->residual) y = _mm512_add_ps(y, load_bf16_masked(mask, l->residual + m * l->columns + n));
            _mm256_mask_storeu_epi16(l->y + m * l->columns + n, mask, narrow(y));
        }
    }
}

static void multiply_tile(void *args, long tile) {
    const struct packed *p = args;
    const struct linear *l = &p->l;
    float *sums = scratch(SCRATCH_SUMS, ROWS_AT_ONCE * TILE * sizeof(float));
    long num_pairs = l->depth / 2;
    for (long k = 0; k < num_pairs; k += PAIRS_AT_ONCE) {
        long pairs = num_pairs - k < PAIRS_AT_ONCE ? num_pairs - k : PAIRS_AT_ONCE;
        const bf16 *w = l->w + (tile * num_pairs + k) * 2 * TILE;
        for (long m = 0; m < l->rows; m += p->step) {
            int rows = l->rows - m < p->step ? l->rows - m : p->step;
            const int32_t *x = p->pair == 1 ? p->x + m * p->row + k : p->x + m * num_pairs + k * rows;
            long pair = p->pair == 1 ? 1 : rows;
            struct product product = {x, p->row, pair, w, pairs, sums + m * TILE, TILE, k > 0, m ? 0 : AHEAD};
            multiply(product, rows, 2);
        }
    }
    finish(l, sums, tile * TILE);
}

/* Rows of x, `step` at a time, as [K / 2][step][2]: `multiply` then reads them as one stream. */
static void pack_rows(void *args, long block) {
    const struct packed *p = args;
    long num_pairs = p->l.depth / 2, m = block * p->step;
    long rows = p->l.rows - m < p->step ? p->l.rows - m : p->step;
    int32_t *out = (int32_t *)p->x + m * num_pairs;
    for (long k = 0; k < num_pairs; k += LANES) {
        __mmask16 in = first(num_pairs - k);
        __m512i x[LANES];
#pragma GCC unroll 16
        for (int row = 0; row < LANES; row++)
            x[row] = _mm512_maskz_loadu_epi32(row < rows ? in : 0, p->l.x + (m + (row < rows ? row : 0)) * p->l.ldx + 2 * k);
        transpose(x);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) _mm512_mask_storeu_epi32(out + (k + i) * rows, k + i < num_pairs ? first(rows) : 0, x[i]);
    }
}

static void run(struct linear l) {
    struct packed p = {l, (const int32_t *)l.x, l.ldx / 2, 1, l.rows};
    if (l.rows > MAX_DIRECT_ROWS) {
        long blocks = (l.rows + MAX_ROWS - 1) / MAX_ROWS;
        p.step = (l.rows + blocks - 1) / blocks;
        p.x = scratch(SCRATCH_INPUT, l.rows * l.depth * sizeof(bf16));
        p.row = 1, p.pair = p.step;
        parallel_for((l.rows + p.step - 1) / p.step, pack_rows, &p);
    }
    parallel_for((l.columns + TILE - 1) / TILE, multiply_tile, &p);
}

/* x [rows, depth], row stride ldx (even); w packed; bias [columns], residual [rows, columns], or null; y [rows, columns]. */
EXPORT void peregrine_linear(const bf16 *x, long ldx, const bf16 *w, const bf16 *bias, const bf16 *residual, bf16 *y,
                             long rows, long columns, long depth, long activation) {
    long blocks = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, step = blocks ? (rows + blocks - 1) / blocks : 1;
    for (long m = 0; m < rows; m += step) {
        long count = rows - m < step ? rows - m : step;
        const bf16 *added = residual ? residual + m * columns : 0;
        run((struct linear){x + m * ldx, ldx, w, bias, added, y + m * columns, count, columns, depth, activation});
    }
}
