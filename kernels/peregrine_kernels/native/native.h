/* What the native CPU kernels share: bfloat16 vectors, the product at the heart of all of them, threads.
 *
 * Built for x86-64 with AVX512-BF16 (Zen 4, Cooper Lake and later); `native.py` loads it on no other CPU. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

enum {
    LANES = 16,     /* float32 of a vector */
    TILE = 32,      /* columns of a packed tile: two vectors */
    MAX_ROWS = 14,  /* rows that `multiply` takes: 14 x 2 sums, 2 weights and 1 input fill the 32 registers */
};

typedef uint16_t bf16;

/* A loop over `count` independent items on the threads that torch uses; idle threads take the next item. */
typedef void task(void *args, long item);
void parallel_for(long count, task *run, void *args);

/* At least `bytes` of this thread's own memory, aligned to a vector; valid until the thread asks again with `slot`. */
enum { SCRATCH_SUMS, SCRATCH_INPUT, SCRATCH_TILE, SCRATCH_SPLITS, NUM_SCRATCH };
void *scratch(int slot, long bytes);

INLINE __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

INLINE __m512 load_bf16(const bf16 *x) { return widen(_mm256_loadu_si256((const __m256i *)x)); }

INLINE __m512 load_bf16_masked(__mmask16 mask, const bf16 *x) { return widen(_mm256_maskz_loadu_epi16(mask, x)); }

INLINE __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

INLINE __m512 rounded(__m512 x) { return widen(narrow(x)); }

INLINE __mmask16 first(long count) { return count >= LANES ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1; }

/* 2**x to 2e-7 relative for x <= 0: the nearest integer goes to the exponent, the rest through a polynomial (Taylor's,
 * of degree 6 on [-1/2, 1/2]). */
INLINE __m512 exp2_512(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-160.0f));
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 t = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

/* 16 vectors of 16 pairs, transposed: by pairs of rows, by fours, by eights, as a whole. */
INLINE void transpose(__m512i x[LANES]) {
    __m512i y[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int low = i % 4 + i / 4 * 8;
        y[low] = _mm512_shuffle_i32x4(x[low], x[low + 4], 0x88);
        y[low + 4] = _mm512_shuffle_i32x4(x[low], x[low + 4], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    }
}

/* Rows of x times packed columns: c[m][n] (+)= sum over pairs k of x[m][k] . w[k][n].
 *
 * x: pairs of bfloat16, that of row m and pair k at x[m * row + k * pair]. w: 16 * vectors columns, those of pair k at
 * w + k * 2 * TILE. c: float32, row stride ldc. `ahead` bytes of w are prefetched, unless it is 0. */
struct product {
    const int32_t *x;
    long row, pair;
    const bf16 *w;
    long num_pairs;
    float *c;
    long ldc;
    int accumulates;
    int ahead;
};

void multiply(struct product p, int rows, int vectors);
