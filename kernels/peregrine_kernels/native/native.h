/* What the native CPU kernels share: bfloat16 vectors, the product at the heart of all of them, threads.
 *
 * Built for x86-64 with AVX512-BF16 and AVX512-VNNI (Zen 4, Cooper Lake and later); `native.py` loads it on no other CPU. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

enum {
    LANES = 16,     /* float32 of a vector */
    MAX_SUMS = 28,  /* vectors of sums that `multiply` keeps: with 2 weights and 1 input they fill the 32 registers */
};

typedef uint16_t bf16;

/* A loop over `count` independent items on the threads that torch uses; idle threads take the next item. */
typedef void task(void *args, long item);
void parallel_for(long count, task *run, void *args);

/* The same over rows of so many elements; by this thread alone where it is done before others have woken. */
void for_rows(long rows, long columns, task *run, void *args);

/* At least `bytes` of this thread's own memory, aligned to a vector; valid until the thread asks again with `slot`. */
enum {
    SCRATCH_SUMS,
    SCRATCH_INPUT,
    SCRATCH_TILE,
    SCRATCH_SPLITS,
    SCRATCH_VALUES,
    SCRATCH_LAYER,
    SCRATCH_INTEGERS,
    NUM_SCRATCH,
};
void *scratch(int slot, long bytes);

INLINE __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

INLINE __m512 load_bf16(const bf16 *x) { return widen(_mm256_loadu_si256((const __m256i *)x)); }

INLINE __m512 load_bf16_masked(__mmask16 mask, const bf16 *x) { return widen(_mm256_maskz_loadu_epi16(mask, x)); }

INLINE __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

INLINE __m512 rounded(__m512 x) { return widen(narrow(x)); }

INLINE __mmask16 first(long count) { return count >= LANES ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1; }

/* 2**x to 3e-6 relative for x <= 0, where a bfloat16, to which it is rounded in the end, is good to 2e-3: the nearest
 * integer goes to the exponent, the rest through a polynomial (of degree 4 and least error on [-1/2, 1/2], 1 at 0). */
INLINE __m512 exp2_512(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-160.0f));
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 t = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(9.58285e-3f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(5.590643e-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(2.4024099e-1f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(6.9312419e-1f));
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

/* Rows of x times packed columns: c[m][n] (+)= sum over k of x[m][k] . w[k][n].
 *
 * k counts units of 32 bits: two bfloat16, their sums float32; or four integers, x unsigned and w signed, their sums int32.
 * x: that of row m and unit k is at x[m * row + k * unit]. w: vectors of 16
 * columns, `apart` from one another, those of unit k at w + k * ldw. c: row stride ldc.
 * `ahead` bytes of w are prefetched, unless it is 0. Rows times vectors are at most MAX_SUMS; over
 * MAX_SUMS / 2 rows are side by side (row 1). */
enum kind { BFLOAT16, INT8 };

struct product {
    enum kind kind;
    const int32_t *x;
    long row, unit;
    const int32_t *w;
    long ldw, apart, num_units;
    void *c;
    long ldc;
    int accumulates;
    int ahead;
};

void multiply(struct product p, int rows, int vectors);

/* A packed weight [columns, depth] and what follows its product. */
struct weight {
    const int32_t *packed; /* [columns / 16][depth in units][16] */
    const bf16 *bias;      /* or null */
    const float *scales;   /* [columns]: integers times these are the weight; null: bfloat16 */
    const float *offsets;  /* [columns]: 128 times the sum of a column's integers */
    long columns, depth, activation;
};

/* One linear of an input; residual and y are [rows, columns], residual may be null. */
struct output {
    const struct weight *w;
    const bf16 *residual;
    bf16 *y;
};

/* `peregrine_linear` for linears of one input and depth, all of integers or none: it is made ready for them once. */
enum { MAX_OUTPUTS = 2 };
void multiply_all(const bf16 *x, long ldx, const struct output *outputs, int count, long rows);

/* The operations; each file says what its own takes. */
void peregrine_layer_norm(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *out, long rows, long columns,
                          float epsilon);
void peregrine_linear(const bf16 *x, long ldx, const struct weight *w, const bf16 *residual, bf16 *y, long rows);
void peregrine_rotary_kv_write(bf16 *qkv, long ld, const bf16 *cos, const bf16 *sin, const int64_t *slots, bf16 *pages,
                               long tokens, long num_heads, long num_kv_heads, long head_dim);
void peregrine_attention(const bf16 *q, long ldq, const bf16 *pages, const int64_t *block_tables, long max_blocks,
                         long block_size, const int64_t *query_starts, const int64_t *context_lengths,
                         long num_sequences, long num_kv_heads, long group, long head_dim, const float *slopes,
                         bf16 *out, long ldo);
