/* y = activation(x W^T + bias) + residual in bfloat16, sums in float32; or in int32, where W is integers times a scale a
 * column, and each row of x is made integers times a scale of its own (W8A8).
 *
 * W [N, K] is packed in tiles of 32 columns of y: [N / 32][K / 2][32][2], or [N / 32][K / 4][32][4] for integers, so that
 * a thread reads it as one stream. Up to 14 rows of x meet each weight while it passes through registers; further rows find
 * its tile in the cache. */
#include "native.h"

enum {
    ROWS_AT_ONCE = 18 * MAX_ROWS, /* rows of x that are packed together: 1 MiB of them at K = 2048 */
    UNITS_AT_ONCE = 1024,         /* of a tile: 128 KiB, an eighth of a core's second-level cache */
    MAX_DIRECT_ROWS = 8,          /* rows that are read in place: more of them, 4 KiB apart, evict one another */
    AHEAD = 4096,                 /* bytes of a weight that are prefetched while it is met for the first time */
};

enum activation { NONE, GELU, GELU_TANH, RELU, SILU };

struct linear {
    const struct weight *w;
    const bf16 *x, *residual;
    bf16 *y;
    long ldx, rows;
};

struct packed {
    struct linear l;
    enum kind kind;
    long num_units;
    const int32_t *x;     /* what is multiplied: x itself, or x as integers, or either in packed rows */
    long row, unit, step; /* of x, in units; rows of one `multiply` */
    const float *row_scales;
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

/* The sums of one tile, from float32 or int32 to what leaves the layer. */
static void finish(const struct packed *p, const int32_t *sums, long column) {
    const struct linear *l = &p->l;
    const struct weight *w = l->w;
    for (long m = 0; m < l->rows; m++) {
        for (long n = column; n < column + TILE && n < w->columns; n += LANES) {
            __mmask16 mask = first(w->columns - n);
            __m512i sum = _mm512_loadu_si512(sums + m * TILE + n - column);
            __m512 y = _mm512_castsi512_ps(sum);
            if (p->kind == INT8) {
                y = _mm512_sub_ps(_mm512_cvtepi32_ps(sum), _mm512_maskz_loadu_ps(mask, w->offsets + n));
                y = _mm512_mul_ps(y, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, w->scales + n), _mm512_set1_ps(p->row_scales[m])));
            }
            /* transformers rounds the product before it adds the bias. */
            if (w->bias) y = _mm512_add_ps(rounded(y), load_bf16_masked(mask, w->bias + n));
            y = activate(y, w->activation);
            if (l->residual) y = _mm512_add_ps(y, load_bf16_masked(mask, l->residual + m * w->columns + n));
            _mm256_mask_storeu_epi16(l->y + m * w->columns + n, mask, narrow(y));
        }
    }
}

static void multiply_tile(void *args, long tile) {
    const struct packed *p = args;
    int32_t *sums = scratch(SCRATCH_SUMS, ROWS_AT_ONCE * TILE * sizeof(int32_t));
    for (long k = 0; k < p->num_units; k += UNITS_AT_ONCE) {
        long units = p->num_units - k < UNITS_AT_ONCE ? p->num_units - k : UNITS_AT_ONCE;
        const int32_t *w = p->l.w->packed + (tile * p->num_units + k) * TILE;
        for (long m = 0; m < p->l.rows; m += p->step) {
            int rows = p->l.rows - m < p->step ? p->l.rows - m : p->step;
            const int32_t *x = p->unit == 1 ? p->x + m * p->row + k : p->x + m * p->num_units + k * rows;
            struct product product = {
                .kind = p->kind, .x = x, .row = p->row, .unit = p->unit == 1 ? 1 : rows, .w = w, .num_units = units,
                .c = sums + m * TILE, .ldc = TILE, .accumulates = k > 0, .ahead = m ? 0 : AHEAD,
            };
            multiply(product, rows, 2);
        }
    }
    finish(p, sums, tile * TILE);
}

/* x of one row as integers from 1 to 255 around 128; what one of them stands for goes to row_scales. */
static void quantize_row(void *args, long row) {
    const struct packed *p = args;
    long depth = p->l.w->depth;
    const bf16 *x = p->l.x + row * p->l.ldx;
    uint8_t *out = (uint8_t *)(p->x + row * p->num_units);
    __m512 largest = _mm512_set1_ps(1e-20f);
    for (long k = 0; k < depth; k += LANES)
        largest = _mm512_max_ps(largest, _mm512_abs_ps(load_bf16_masked(first(depth - k), x + k)));
    float scale = _mm512_reduce_max_ps(largest) / 127.0f;
    ((float *)p->row_scales)[row] = scale;
    for (long k = 0; k < depth; k += LANES) {
        __mmask16 mask = first(depth - k);
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(load_bf16_masked(mask, x + k), _mm512_set1_ps(1.0f / scale)));
        _mm512_mask_cvtepi32_storeu_epi8(out + k, mask, _mm512_add_epi32(q, _mm512_set1_epi32(128)));
    }
}

/* Rows of x, `step` at a time, as [units][step]: `multiply` then reads them as one stream. */
struct rows_to_pack {
    const struct packed *p;
    const int32_t *x;
    long row;
    int32_t *out;
};

static void pack_rows(void *args, long block) {
    const struct rows_to_pack *a = args;
    long num_units = a->p->num_units, m = block * a->p->step;
    long rows = a->p->l.rows - m < a->p->step ? a->p->l.rows - m : a->p->step;
    int32_t *out = a->out + m * num_units;
    for (long k = 0; k < num_units; k += LANES) {
        __mmask16 in = first(num_units - k);
        __m512i x[LANES];
#pragma GCC unroll 16
        for (int row = 0; row < LANES; row++)
            x[row] = _mm512_maskz_loadu_epi32(row < rows ? in : 0, a->x + (m + (row < rows ? row : 0)) * a->row + k);
        transpose(x);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            _mm512_mask_storeu_epi32(out + (k + i) * rows, k + i < num_units ? first(rows) : 0, x[i]);
    }
}

static void run(struct linear l) {
    struct packed p = {.l = l, .kind = l.w->scales ? INT8 : BFLOAT16, .unit = 1, .step = l.rows};
    p.num_units = l.w->depth / (p.kind == INT8 ? 4 : 2);
    p.x = (const int32_t *)l.x, p.row = l.ldx / 2;
    if (p.kind == INT8) {
        p.x = scratch(SCRATCH_INTEGERS, l.rows * (p.num_units + 1) * sizeof(int32_t));
        p.row_scales = (const float *)(p.x + l.rows * p.num_units), p.row = p.num_units;
        parallel_for(l.rows, quantize_row, &p);
    }
    if (l.rows > MAX_DIRECT_ROWS) {
        long blocks = (l.rows + MAX_ROWS - 1) / MAX_ROWS;
        p.step = (l.rows + blocks - 1) / blocks;
        struct rows_to_pack rows = {&p, p.x, p.row, scratch(SCRATCH_INPUT, l.rows * p.num_units * sizeof(int32_t))};
        parallel_for((l.rows + p.step - 1) / p.step, pack_rows, &rows);
        p.x = rows.out, p.row = 1, p.unit = p.step;
    }
    parallel_for((l.w->columns + TILE - 1) / TILE, multiply_tile, &p);
}

/* x [rows, depth], row stride ldx (even); residual [rows, columns], or null; y [rows, columns]. */
EXPORT void peregrine_linear(const bf16 *x, long ldx, const struct weight *w, const bf16 *residual, bf16 *y, long rows) {
    long blocks = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, step = blocks ? (rows + blocks - 1) / blocks : 1;
    for (long m = 0; m < rows; m += step) {
        long count = rows - m < step ? rows - m : step;
        const bf16 *added = residual ? residual + m * w->columns : 0;
        run((struct linear){w, x + m * ldx, added, y + m * w->columns, ldx, count});
    }
}
