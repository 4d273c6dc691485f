/* Operations on each token's row by itself: LayerNorm, rotary embedding, the write to the KV cache, argmax. */
#include "native.h"

#include <math.h>
#include <string.h>

enum { MIN_PARALLEL = 1 << 16 /* elements; fewer take less time than waking other threads */ };

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
    vec sum = zero(), squares = zero();
    for (long n = 0; n < a->columns; n += LANES) sum = add(sum, load_bf16(x + n, a->columns - n));
    vec mean = splat(sum_of(sum) / a->columns);
    for (long n = 0; n < a->columns; n += LANES) {
        long left = a->columns - n;
        vec centred = keep_first(sub(load_bf16(x + n, left), mean), left);
        squares = fmadd(centred, centred, squares);
    }
    vec scale = splat(1.0f / sqrtf(sum_of(squares) / a->columns + a->epsilon));
    for (long n = 0; n < a->columns; n += LANES) {
        long left = a->columns - n;
        vec y = mul(sub(load_bf16(x + n, left), mean), scale);
        y = fmadd(y, load_bf16(a->weight + n, left), load_bf16(a->bias + n, left));
        store_bf16(a->out + row * a->columns + n, y, left);
    }
}

/* x, out [rows, columns]; weight, bias [columns]. */
EXPORT void peregrine_layer_norm(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *out, long rows, long columns,
                                 float epsilon) {
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

/* (a, b) -> (a cos - b sin, b cos + a sin) over the halves a, b of one head; products are rounded to bfloat16, as in
 * transformers. */
static void rotate_head(bf16 *x, const bf16 *cos, const bf16 *sin, long half) {
    for (long n = 0; n < half; n += LANES) {
        long left = half - n;
        vec a = load_bf16(x + n, left), b = load_bf16(x + half + n, left);
        vec ca = load_bf16(cos + n, left), cb = load_bf16(cos + half + n, left);
        vec sa = load_bf16(sin + n, left), sb = load_bf16(sin + half + n, left);
        vec first = sub(rounded(mul(a, ca)), rounded(mul(b, sa)));
        vec second = add(rounded(mul(b, cb)), rounded(mul(a, sb)));
        store_bf16(x + n, first, left);
        store_bf16(x + half + n, second, left);
    }
}

static void rotate_and_write(void *args, long token) {
    const struct rotary *a = args;
    bf16 *row = a->qkv + token * a->ld;
    if (a->cos)
        for (long head = 0; head < a->num_heads + a->num_kv_heads; head++)
            rotate_head(row + head * a->head_dim, a->cos + token * a->head_dim, a->sin + token * a->head_dim, a->head_dim / 2);
    long size = 2 * a->num_kv_heads * a->head_dim;
    memcpy(a->pages + a->slots[token] * size, row + a->num_heads * a->head_dim, size * sizeof(bf16));
}

/* qkv [tokens, (num_heads + 2 num_kv_heads) * head_dim], row stride ld; cos, sin [tokens, head_dim], or null;
 * slots [tokens]; pages [slots, 2, num_kv_heads, head_dim]. */
EXPORT void peregrine_rotary_kv_write(bf16 *qkv, long ld, const bf16 *cos, const bf16 *sin, const int64_t *slots, bf16 *pages,
                                      long tokens, long num_heads, long num_kv_heads, long head_dim) {
    struct rotary args = {qkv, ld, cos, sin, slots, pages, num_heads, num_kv_heads, head_dim};
    for_rows(tokens, (num_heads + num_kv_heads) * head_dim, rotate_and_write, &args);
}

struct scores {
    const float *x;
    long columns;
    int64_t *out;
};

static float largest_in(const float *x, long count) {
    vec most = splat(-INFINITY);
    long whole = count / LANES * LANES;
    for (long n = 0; n < whole; n += LANES) most = largest(most, load(x + n));
    float best = largest_of(most);
    for (long n = whole; n < count; n++)
        if (x[n] > best) best = x[n];
    return best;
}

/* Finds the block of columns with the maximum, then its first position there. */
static void find_largest(void *args, long row) {
    enum { BLOCK = 64 * LANES };
    const struct scores *a = args;
    const float *x = a->x + row * a->columns;
    float best = -INFINITY;
    long at = 0;
    for (long n = 0; n < a->columns; n += BLOCK) {
        float most = largest_in(x + n, a->columns - n < BLOCK ? a->columns - n : BLOCK);
        if (most > best) best = most, at = n;
    }
    while (at + 1 < a->columns && x[at] != best) at++;
    a->out[row] = at;
}

/* x [rows, columns], without NaN; out [rows]: the first column with each row's maximum. */
EXPORT void peregrine_argmax(const float *x, long rows, long columns, int64_t *out) {
    struct scores args = {x, columns, out};
    for_rows(rows, columns, find_largest, &args);
}
