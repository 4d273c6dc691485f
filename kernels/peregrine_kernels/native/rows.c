/* Operations on each token's row by itself: LayerNorm, rotary embedding, the write to the KV cache, argmax. */
#include "kv_pages.h"

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
    struct pages pages;
    long num_heads;
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

/* Quantizes one head to 8 bits as kv_cache.quantize does, to the bit. Returns the scale. */
static float quantize_head(const bf16 *x, long count, enum kv_kind kind, uint8_t *out) {
    vec most = zero();
    for (long n = 0; n < count; n += LANES) most = largest(most, absolute(load_bf16(x + n, count - n)));
    float size = largest_of(most), scale = (size > 0 ? size : 1.0f) / (kind == KV_INT8 ? 127.0f : 448.0f);
    for (long n = 0; n < count; n += LANES) {
        vec scaled = divide(load_bf16(x + n, count - n), splat(scale));
        if (kind == KV_INT8) {
            store_bytes(out + n, to_integers(floor_of(add(scaled, splat(0.5f)))), count - n);
            continue;
        }
        float lanes[LANES];
        store(lanes, scaled);
        for (long i = 0; i < LANES && i < count - n; i++) out[n + i] = encode_e4m3(lanes[i]);
    }
    return scale;
}

/* Writes the K and V of a token, of all heads, to its slot. */
static void write_token(const struct pages *p, int64_t slot, const bf16 *kv) {
    long block = slot / p->block_size, in_block = slot % p->block_size;
    char *values = values_at(p, block, in_block);
    if (!is_8_bit(p)) {
        memcpy(values, kv, token_bytes(p));
        return;
    }
    float *scales = scales_at(p, block, in_block);
    for (long head = 0; head < kv_heads(p); head++)
        scales[head] = quantize_head(kv + head * p->head_dim, p->head_dim, p->kind, (uint8_t *)values + head * p->head_dim);
}

static void rotate_and_write(void *args, long token) {
    const struct rotary *a = args;
    long head_dim = a->pages.head_dim;
    bf16 *row = a->qkv + token * a->ld;
    if (a->cos)
        for (long head = 0; head < a->num_heads + a->pages.num_kv_heads; head++)
            rotate_head(row + head * head_dim, a->cos + token * head_dim, a->sin + token * head_dim, head_dim / 2);
    write_token(&a->pages, a->slots[token], row + a->num_heads * head_dim);
}

/* qkv [tokens, (num_heads + 2 num_kv_heads) * head_dim], row stride ld; cos, sin [tokens, head_dim], or null;
 * slots [tokens]; pages [blocks, block_size, 2, num_kv_heads, head_dim] of `kind`, an enum kv_kind. */
EXPORT void peregrine_rotary_kv_write(bf16 *qkv, long ld, const bf16 *cos, const bf16 *sin, const int64_t *slots, void *pages,
                                      long tokens, long num_heads, long num_kv_heads, long head_dim, long block_size,
                                      long kind) {
    struct rotary args = {qkv, ld, cos, sin, slots, {pages, kind, block_size, num_kv_heads, head_dim}, num_heads};
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
