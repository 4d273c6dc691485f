/* One layer's pages of the KV cache, as kv_cache.py lays them out: K and V of each token in the model's bfloat16, or in 8 bits
 * with a float32 scale for each head of a token, which lie behind the values of each block. */
#pragma once

#include "native.h"

/* Heads of a token: of K, then of V. */
INLINE long kv_heads(const struct pages *p) { return 2 * p->num_kv_heads; }

INLINE int is_8_bit(const struct pages *p) { return p->kind != KV_BF16; }

INLINE long element_bytes(const struct pages *p) { return is_8_bit(p) ? 1 : sizeof(bf16); }

/* Bytes from one token's values to the next one's, of a block. */
INLINE long token_bytes(const struct pages *p) { return kv_heads(p) * p->head_dim * element_bytes(p); }

INLINE long block_bytes(const struct pages *p) {
    return p->block_size * (token_bytes(p) + (is_8_bit(p) ? kv_heads(p) * sizeof(float) : 0));
}

/* Values of the first head of the token in `slot` of a block. */
INLINE char *values_at(const struct pages *p, long block, long slot) {
    return p->data + block * block_bytes(p) + slot * token_bytes(p);
}

/* Scales of all heads of the token in `slot` of a block, of 8-bit pages. */
INLINE float *scales_at(const struct pages *p, long block, long slot) {
    return (float *)(p->data + block * block_bytes(p) + p->block_size * token_bytes(p)) + slot * kv_heads(p);
}

/* 8-bit values, sign-extended to words, as float32. The bits of e4m3 are moved to their places in a float16, whose bias is
 * larger by 8: what they stand for is 2 ** -8 of the value, denormal ones included. NaN is none of them. */
INLINE vec decode(__m256i words, const enum kv_kind kind) {
    if (kind == KV_INT8) return of_words(words);
    return of_halves(_mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16((short)0xBFFF)));
}

/* The factor of what `decode` leaves out. */
INLINE float decoded_scale(const enum kv_kind kind) { return kind == KV_FP8 ? 256.0f : 1.0f; }

/* 16 pairs of adjacent 8-bit values as pairs of bfloat16, which represents them exactly; zeros from `count` pairs on. */
INLINE ivec load_pairs(const char *x, long count, const enum kv_kind kind) {
    __m256i words = load_byte_pairs(x, count);
    return exact_pairs(decode(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8), kind),
                       decode(_mm256_srai_epi16(words, 8), kind));
}

/* As `store_interleaved`, of 8-bit values. */
INLINE void store_interleaved_bytes(int32_t *out, const char *even, const char *odd, long count, const enum kv_kind kind) {
    for (long n = 0; n < 2 * LANES && n < count; n += LANES) {
        vec first = decode(load_bytes(even + n, count - n), kind), second = zero();
        if (odd) second = decode(load_bytes(odd + n, count - n), kind);
        istore(out + n, exact_pairs(first, second));
    }
}

/* The bits of e4m3 that is nearest to x, ties to even; |x| < 464. */
INLINE uint8_t encode_e4m3(float x) {
    union {
        float value;
        uint32_t bits;
    } size = {.value = x < 0 ? -x : x}, denormal = size;
    /* Added to a float32 of this exponent, the last bit of a denormal becomes the last bit of the sum. */
    denormal.value += 16384.0f;
    uint32_t of_normal = (size.bits - (120u << 23) + 0x7FFFF + (size.bits >> 20 & 1)) >> 20;
    uint32_t of_denormal = denormal.bits & 0xF;
    return (size.value < 0.015625f ? of_denormal : of_normal) | (__builtin_signbit(x) ? 0x80 : 0);
}
