/* What the native CPU kernels share: bfloat16 vectors, the product at the heart of all of them, threads.
 *
 * Built three times: for AVX2, for AVX512-BF16, and for that with AMX; `native/__init__.py` loads what runs. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

enum { LANES = 16 /* float32 of a vector */ };

typedef uint16_t bf16;

enum kind { BFLOAT16, INT8 };

INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }

/* A loop over `count` independent items, one by one or in runs of them up to `end`. */
typedef void task(void *args, long item);
typedef void task_of_run(void *args, long item, long end);
struct loop {
    task *begin;      /* of each thread, before its first item; or null */
    task *each;       /* or null: */
    task_of_run *run;
    void *args;
    long count;
};

/* On the threads that torch uses; idle threads take the next items, and those of `second` while others are still at those of
 * `first`, which may be null. */
void parallel_loops(const struct loop *first, const struct loop *second);
void parallel_for(long count, task *run, void *args);

/* How many run such loops. */
long threads(void);

/* The same over rows of so many elements; by this thread alone where it is done before others have woken. */
void for_rows(long rows, long columns, task *run, void *args);

/* At least `bytes` of this thread's own memory, aligned to a vector; valid until the thread asks again with `slot`. */
enum {
    SCRATCH_SUMS,
    SCRATCH_PART_SUMS,
    SCRATCH_INPUT,
    SCRATCH_TILE,
    SCRATCH_PLAN,
    SCRATCH_SPLITS,
    SCRATCH_VALUES,
    SCRATCH_LAYER,
    SCRATCH_POSITIONS,
    SCRATCH_SAMPLED,
    SCRATCH_INTEGERS,
    NUM_SCRATCH,
};
void *scratch(int slot, long bytes);

#ifdef __AVX512BF16__
#include "vector_avx512.h"
#else
#include "vector_avx2.h"
#endif

/* 2**x to 3e-6 relative for x <= 0, where a bfloat16, to which it is rounded in the end, is good to 2e-3: the nearest
 * integer goes to the exponent, the rest through a polynomial (of degree 4 and least error on [-1/2, 1/2], 1 at 0). */
INLINE vec exp2_of(vec x) {
    x = largest(x, splat(-160.0f));
    vec whole = nearest(x);
    vec t = sub(x, whole);
    vec p = splat(9.58285e-3f);
    p = fmadd(p, t, splat(5.590643e-2f));
    p = fmadd(p, t, splat(2.4024099e-1f));
    p = fmadd(p, t, splat(6.9312419e-1f));
    p = fmadd(p, t, splat(1.0f));
    return scale_by_power(p, whole);
}

/* Rows of x times one or two vectors of packed columns: c[m][n] (+)= sum over k of x[m][k] . w[k][n].
 *
 * k counts units of 32 bits: two bfloat16, their sums float32; or four integers, x unsigned and w signed, their sums int32.
 * x: that of row m and unit k is at x[m * row + k * column]. w: columns side by side, those of unit k at w + k * ldw. c: row
 * stride ldc. What lies `ahead` bytes on in w is prefetched, unless that is 0. Rows are at most MAX_ROWS; of more than
 * MAX_PAIR_ROWS, one vector is multiplied after the other.
 *
 * In AMX tiles column is 1, num_units a multiple of UNITS_OF_BLOCK, and rows are read and written up to a multiple of 16. */
struct product {
    enum kind kind;
    const unit *x;
    long row, column;
    const int32_t *w;
    long ldw, num_units;
    void *c;
    long ldc;
    int accumulates;
    long ahead, every, since; /* one unit in so many is prefetched, the first after `since` */
    long more_tiles;          /* of w behind the first, all their sums one behind the other in c */
};

void multiply(const struct product *product, int rows, int vectors);

/* The AMX tiles of this thread, about whatever calls `multiply`: `parallel_for` does it for its tasks. 70 ns. */
#ifdef __AMX_TILE__
void begin_tiles(void);
void end_tiles(void);
#else
INLINE void begin_tiles(void) {}
INLINE void end_tiles(void) {}
#endif

/* A packed weight [columns, depth] and what follows its product. */
struct weight {
    const int32_t *packed; /* [columns / n][depth in units][n], n 16 * VECTORS; units to a multiple of UNITS_OF_BLOCK */
    const bf16 *bias;      /* or null */
    const float *scales;   /* [columns]: integers times these are the weight; null: bfloat16 */
    const float *offsets;  /* [columns]: 128 times the sum of a column's integers */
    long columns, depth, activation;
};

/* `peregrine_linear` with another loop in front of its own: what takes one thread long leaves memory to the others. */
void linear_beside(const struct loop *first, const bf16 *x, long ldx, const struct weight *w, bf16 *y, long rows);

/* The same values in float32. */
void linear_to_floats(const bf16 *x, long ldx, const struct weight *w, float *y, long rows);

/* See `peregrine_attention`. */
struct attention {
    const bf16 *q;
    long ldq;
    const bf16 *pages;
    const int64_t *block_tables;
    long max_blocks, block_size;
    const int64_t *query_starts, *context_lengths;
    long num_sequences, num_kv_heads, group, head_dim;
    const float *slopes;
    bf16 *out;
    long ldo;
};

/* Attention, its loop run by `run`, which may run another beside it. */
typedef void run_loop(const struct loop *loop, void *args);
void attend(const struct attention *a, run_loop *run, void *args);

struct layer {
    const bf16 *attention_norm[2], *mlp_norm[2]; /* weight and bias; mlp_norm null: the MLP reads attention's */
    const struct weight *qkv, *up, *dense, *down;
    const float *slopes;
    long num_heads, num_kv_heads, head_dim;
    float epsilon;
};

struct step {
    const int64_t *slots, *block_tables, *query_starts, *context_lengths;
    long rows, max_blocks, num_sequences;
};

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
void peregrine_parallel_layer(const struct layer *l, const struct step *step, const bf16 *cos, const bf16 *sin,
                              const bf16 *x, bf16 *pages, bf16 *out, long block_size, long has_residual);
