/* Where the K and V of tokens lie in the pages, and how they are loaded for `multiply`. Part of attention.c, which alone
 * includes it. */
#pragma once

#include "attention_plan.h"

#include <string.h>

enum { LINE = 64 /* bytes of a cache line */ };

/* Bytes from a token's K to its V. */
INLINE long to_values(const struct attention *a) { return a->num_kv_heads * a->head_dim * element_bytes(&a->pages); }

/* The address of each token's K. */
static void find_keys(const struct attention *a, struct place at, long start, long count, const char **keys) {
    const struct pages *pages = &a->pages;
    long slot = start % pages->block_size, step = token_bytes(pages), head = at.head * a->head_dim * element_bytes(pages);
    const int64_t *block = a->block_tables + at.sequence * a->max_blocks + start / pages->block_size;
    for (long i = 0; i < count; slot = 0) {
        const char *key = values_at(pages, *block++, slot) + head;
        long in_block = pages->block_size - slot, end = i + in_block < count ? i + in_block : count;
        for (; i < end; i++, key += step) keys[i] = key;
    }
}

/* The scales of each token's K and V, of 8-bit pages. */
static void find_scales(const struct attention *a, struct place at, long start, long count, float *key_scales,
                        float *value_scales) {
    const struct pages *pages = &a->pages;
    long slot = start % pages->block_size, step = kv_heads(pages);
    const int64_t *block = a->block_tables + at.sequence * a->max_blocks + start / pages->block_size;
    float factor = decoded_scale(pages->kind);
    for (long i = 0; i < count; slot = 0) {
        const float *scales = scales_at(pages, *block++, slot) + at.head;
        long in_block = pages->block_size - slot, end = i + in_block < count ? i + in_block : count;
        for (; i < end; i++, scales += step)
            key_scales[i] = factor * scales[0], value_scales[i] = factor * scales[a->num_kv_heads];
    }
}

/* Prefetches K and V of a token: a block of pages is too short for the hardware prefetcher to detect the stream. */
INLINE void prefetch_token(const struct attention *a, const char *key) {
    for (long n = 0; n < a->head_dim * element_bytes(&a->pages); n += LINE) {
        _mm_prefetch(key + n, _MM_HINT_T1);
        _mm_prefetch(key + to_values(a) + n, _MM_HINT_T1);
    }
}

/* Loads K of `count` tokens as units, padded with zeros. */
INLINE void load_keys_of(const struct attention *a, const char **keys, unit *out, long count, const enum kv_kind kind) {
    for (long i = 0; i < count; i++)
        for (long k = 0; k < num_units(a); k += LANES) {
            long pairs = a->head_dim / 2 - k;
            ivec x = kind == KV_BF16 ? iload_first(keys[i] + 4 * k, pairs) : load_pairs(keys[i] + 2 * k, pairs, kind);
            store_units(out + i * key_units(a) + k, x, LANES);
        }
}

static void load_keys(const struct attention *a, const char **keys, unit *out, long count) {
    switch (a->pages.kind) {
        case KV_BF16: load_keys_of(a, keys, out, count, KV_BF16); break;
        case KV_INT8: load_keys_of(a, keys, out, count, KV_INT8); break;
        case KV_FP8: load_keys_of(a, keys, out, count, KV_FP8); break;
    }
}

/* V of a segment in tiles of 32 columns, two tokens of a column side by side; padded with zeros. */
INLINE void load_values_of(const struct attention *a, const char **keys, int32_t *out, long count, const enum kv_kind kind) {
    for (long pair = ceil_div(count, 2); pair < num_pairs(count); pair++)
        for (long n = 0; n < a->head_dim; n += TILE)
            memset(out + (n / TILE * (SEGMENT / 2) + pair) * TILE, 0, TILE * sizeof(int32_t));
    for (long i = 0; i < count; i += 2) {
        const char *even = keys[i] + to_values(a), *odd = i + 1 < count ? keys[i + 1] + to_values(a) : 0;
        for (long n = 0; n < a->head_dim; n += TILE) {
            int32_t *to = out + (n / TILE * (SEGMENT / 2) + i / 2) * TILE;
            if (kind == KV_BF16)
                store_interleaved(to, (const bf16 *)even + n, odd ? (const bf16 *)odd + n : 0, a->head_dim - n);
            else
                store_interleaved_bytes(to, even + n, odd ? odd + n : 0, a->head_dim - n, kind);
        }
    }
}

static void load_values(const struct attention *a, const char **keys, int32_t *out, long count) {
    switch (a->pages.kind) {
        case KV_BF16: load_values_of(a, keys, out, count, KV_BF16); break;
        case KV_INT8: load_values_of(a, keys, out, count, KV_INT8); break;
        case KV_FP8: load_values_of(a, keys, out, count, KV_FP8); break;
    }
}
