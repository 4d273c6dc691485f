/* What is done to each token's row by itself: LayerNorm, rotary embedding, the write to the KV cache. */
#include "native.h"

#include <math.h>
#include <string.h>

enum { MIN_PARALLEL = 1 << 16 /* elements; fewer are done before other threads have woken */ };

void for_rows(long rows, long columns, task *run, void *args) {
    if (rows * columns >= MIN_PARALLEL) {
        parallel_for(rows, run, args);
        return;
    }
    for (long row = 0; row < rows; row++) run(args, row);
}

struct norm {
    const bf16 *x, *weight, *bias;
    bf16 *out;
    long columns;
    float epsilon;
};

static void normalize_row(void *args, long row) {
    const struct norm *a = args;
    const bf16 *x = a->x + row * a->columns;
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (long n = 0; n < a->columns; n += LANES)
        sum = _mm512_add_ps(sum, load_bf16_masked(first(a->columns - n), x + n));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / a->columns);
    for (long n = 0; n < a->columns; n += LANES) {
        __mmask16 mask = first(a->columns - n);
        __m512 centred = _mm512_maskz_sub_ps(mask, load_bf16_masked(mask, x + n), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / a->columns + a->epsilon));
    for (long n = 0; n < a->columns; n += LANES) {
        __mmask16 mask = first(a->columns - n);
        __m512 y = _mm512_mul_ps(_mm512_sub_ps(load_bf16_masked(mask, x + n), mean), scale);
        y = _mm512_fmadd_ps(y, load_bf16_masked(mask, a->weight + n), load_bf16_masked(mask, a->bias + n));
        _mm256_mask_storeu_epi16(a->out + row * a->columns + n, mask, narrow(y));
    }
}

/* x, out [rows, columns]; weight, bias [columns]. */
EXPORT void peregrine_layer_norm(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *out, long rows,
                                 long columns, float epsilon) {
    struct norm args = {x, weight, bias, out, columns, epsilon};
    for_rows(rows, columns, normalize_row, &args);
}

struct rotary {
    bf16 *qkv;
    long ld;
    const bf16 *cos, *sin;
    const int64_t *slots;
    bf16 *pages;
    long num_heads, num_kv_heads, head_dim;
};

/* (a, b) -> (a cos - b sin, b cos + a sin) over the halves a, b of one head; products are rounded, as transformers does. */
static void rotate_head(bf16 *x, const bf16 *cos, const bf16 *sin, long half) {
    for (long n = 0; n < half; n += LANES) {
        __mmask16 mask = first(half - n);
        __m512 a = load_bf16_masked(mask, x + n), b = load_bf16_masked(mask, x + half + n);
        __m512 ca = load_bf16_masked(mask, cos + n), cb = load_bf16_masked(mask, cos + half + n);
        __m512 sa = load_bf16_masked(mask, sin + n), sb = load_bf16_masked(mask, sin + half + n);
        __m512 left = _mm512_sub_ps(rounded(_mm512_mul_ps(a, ca)), rounded(_mm512_mul_ps(b, sa)));
        __m512 right = _mm512_add_ps(rounded(_mm512_mul_ps(b, cb)), rounded(_mm512_mul_ps(a, sb)));
        _mm256_mask_storeu_epi16(x + n, mask, narrow(left));
        _mm256_mask_storeu_epi16(x + half + n, mask, narrow(right));
    }
}

static void rotate_and_write(void *args, long token) {
    const struct rotary *a = args;
    bf16 *row = a->qkv + token * a->ld;
    if (a->cos)
        for (long head = 0; head < a->num_heads + a->num_kv_heads; head++)
            rotate_head(row + head * a->head_dim, a->cos + token * a->head_dim, a->sin + token * a->head_dim,
                        a->head_dim / 2);
    long size = 2 * a->num_kv_heads * a->head_dim;
    memcpy(a->pages + a->slots[token] * size, row + a->num_heads * a->head_dim, size * sizeof(bf16));
}

/* qkv [tokens, (num_heads + 2 num_kv_heads) * head_dim], row stride ld; cos, sin [tokens, head_dim], or null;
 * slots [tokens]; pages [slots, 2, num_kv_heads, head_dim]. */
EXPORT void peregrine_rotary_kv_write(bf16 *qkv, long ld, const bf16 *cos, const bf16 *sin, const int64_t *slots,
                                      bf16 *pages, long tokens, long num_heads, long num_kv_heads, long head_dim) {
    struct rotary args = {qkv, ld, cos, sin, slots, pages, num_heads, num_kv_heads, head_dim};
    for_rows(tokens, (num_heads + num_kv_heads) * head_dim, rotate_and_write, &args);
}
