/* The epilogue of a linear: scales, bias, activation, residual, store. */
#include "linear.h"

enum activation { NONE, GELU, GELU_TANH, RELU, SILU };

/* 1 / x to float32's precision: an estimate (12 bits on AVX2, 14 on AVX512) and a Newton step, in a third of a division's
 * time. */
INLINE vec reciprocal(vec x) {
    vec estimate = estimate_reciprocal(x);
    return mul(estimate, fnmadd(x, estimate, splat(2.0f)));
}

/* x / 2 (1 + erf(x / sqrt(2))), erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
INLINE vec gelu(vec x) {
    const vec one = splat(1.0f);
    vec z = mul(absolute(x), splat(0.70710678f));
    vec t = reciprocal(fmadd(z, splat(0.3275911f), one));
    vec p = splat(1.061405429f);
    p = fmadd(p, t, splat(-1.453152027f));
    p = fmadd(p, t, splat(1.421413741f));
    p = fmadd(p, t, splat(-0.284496736f));
    p = fmadd(p, t, splat(0.254829592f));
    vec square = mul(mul(z, z), splat(-1.44269504f));
    vec tail = mul(mul(p, t), exp2_of(square)); /* 1 - erf(z) */
    vec half = mul(splat(0.5f), x);
    vec scaled = mul(half, tail);
    /* x - x / 2 * tail for x >= 0, x / 2 * tail for x < 0 */
    return by_sign(x, sub(x, scaled), scaled);
}

/* x / (1 + exp(-t)) */
INLINE vec times_sigmoid(vec x, vec t) {
    vec e = exp2_of(mul(absolute(t), splat(-1.44269504f))); /* exp(-|t|) */
    vec of_negative = mul(mul(x, e), reciprocal(add(splat(1.0f), e)));
    return by_sign(t, sub(x, of_negative), of_negative);
}

/* x / 2 (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
INLINE vec gelu_tanh(vec x) {
    vec cubic = fmadd(mul(x, x), splat(0.044715f), splat(1.0f));
    return times_sigmoid(x, mul(mul(x, cubic), splat(2.0f * 0.79788456f)));
}

INLINE vec activate(vec x, enum activation activation) {
    switch (activation) {
        case GELU: return gelu(x);
        case GELU_TANH: return gelu_tanh(x);
        case RELU: return largest(x, zero());
        case SILU: return times_sigmoid(x, x);
        default: return x;
    }
}

void prefetch_outputs(const struct output *to, long column, long row, int rows) {
    const struct weight *w = to->w;
    for (long m = row; m < row + rows; m++) {
        if (to->y) __builtin_prefetch(to->y + m * w->columns + column, 1);
        if (to->residual) __builtin_prefetch(to->residual + m * w->columns + column);
    }
    if (w->kind == WEIGHT_INT8) __builtin_prefetch(w->scales + column), __builtin_prefetch(w->offsets + column);
    if (w->bias) __builtin_prefetch(w->bias + column);
}

INLINE void store_result(struct output to, long at, vec y, long count) {
    if (to.wide)
        store_first(to.wide + at, rounded(y), count);
    else
        store_bf16(to.y + at, y, count);
}

/* The epilogue of some rows of one vector of columns: scales, bias, activation, residual, store. `kind` and `activation` are
 * the weight's, as compile-time constants, so that nothing is decided per row. */
INLINE void finish_rows(const struct packed *p, const int32_t *sums, long ld, long column, long row, int rows,
                        const enum weight_kind kind, const enum activation activation) {
    const struct output to = p->to;
    const struct weight w = *to.w;
    const float *row_scales = p->row_scales;
    long left = w.columns - column;
    vec scales = zero(), offsets = scales, bias = scales;
    if (w.bias) bias = load_bf16(w.bias + column, left);
    if (kind == WEIGHT_INT8) {
        scales = load_first(w.scales + column, left);
        offsets = load_first(w.offsets + column, left);
    }
    for (long m = row; m < row + rows; m++) {
        ivec sum = iload(sums + (m - row) * ld);
        vec y = as_floats(sum);
        if (kind == WEIGHT_INT8) {
            y = sub(of_integers(sum), offsets);
            y = mul(y, mul(scales, splat(row_scales[m])));
        }
        if (kind == WEIGHT_INT4) y = mul(y, splat(row_scales[m]));
        /* transformers rounds the product to bfloat16 before it adds the bias. */
        if (w.bias) y = add(rounded(y), bias);
        y = activate(y, activation);
        if (to.residual) y = add(y, load_bf16(to.residual + m * w.columns + column, left));
        store_result(to, m * w.columns + column, y, left);
    }
}

#define CASE(activation)                                                          \
    case activation:                                                              \
        if (p->kind == WEIGHT_INT8)                                               \
            finish_rows(p, sums, ld, column, row, rows, WEIGHT_INT8, activation); \
        else if (p->kind == WEIGHT_INT4)                                          \
            finish_rows(p, sums, ld, column, row, rows, WEIGHT_INT4, activation); \
        else                                                                      \
            finish_rows(p, sums, ld, column, row, rows, WEIGHT_BF16, activation); \
        break;

static void finish(const struct packed *p, const int32_t *sums, long ld, long column, long row, int rows) {
    switch ((enum activation)p->to.w->activation) { CASE(NONE) CASE(GELU) CASE(GELU_TANH) CASE(RELU) CASE(SILU) }
}

void finish_tile(const struct packed *p, const int32_t *sums, long tile, long row, int rows) {
    for (long column = tile * TILE, i = 0; i < TILE && column + i < p->to.w->columns; i += LANES)
        finish(p, sums + i, TILE, column + i, row, rows);
}
