/* Declarations common to the native CPU kernels: bfloat16 vectors, the matrix product that all of them use, threads.
 *
 * Built three times: for AVX2, for AVX512-BF16, and for AVX512-BF16 with AMX; `native/__init__.py` loads the fastest library
 * that the CPU runs. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

enum { LANES = 16 /* float32 elements of a vector */ };

typedef uint16_t bf16;

/* The format of a packed weight, and so of the products with it. */
enum weight_kind { WEIGHT_BF16, WEIGHT_INT8, WEIGHT_INT4 };

INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }

/* A loop over `count` independent items, called per item or per range [item, end). */
typedef void task(void *args, long item);
typedef void range_task(void *args, long item, long end);
struct loop {
    task *begin; /* called by each thread before its first item; or null */
    task *each;  /* called per item; null if `range` is set */
    range_task *range;
    void *args;
    long count;
};

/* Runs both loops on torch's threads. An idle thread takes the next items; when none of `first` (may be null) are left, it
 * goes on to `second` without waiting for the threads that still work on `first`. */
void parallel_loops(const struct loop *first, const struct loop *second);
void parallel_for(long count, task *run, void *args);

/* The number of threads that run such loops. */
long threads(void);

/* The same over rows of `columns` elements; single-threaded if that takes less time than waking the other threads. */
void for_rows(long rows, long columns, task *run, void *args);

/* Thread-local memory of at least `bytes`, page-aligned; valid until the same thread asks again with the same `slot`. */
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
    SCRATCH_KEYS,
    SCRATCH_EXPANDED,
    SCRATCH_GROUPS,
    NUM_SCRATCH,
};
void *scratch(int slot, long bytes);

#ifdef __AVX512BF16__
#include "vector_avx512.h"
#else
#include "vector_avx2.h"
#endif

/* 2**x for x <= 0, relative error 3e-6 (results are rounded to bfloat16 in the end, whose error is 2e-3). The nearest integer
 * goes to the exponent; the remainder in [-1/2, 1/2] goes through a minimax polynomial of degree 4 that is 1 at 0. */
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
 * k counts units of 32 bits: two bfloat16, accumulated in float32; or four 8-bit integers, x unsigned and w signed, accumulated
 * in int32. Unit k of row m of x is at x[m * row + k * column]. Unit k of w is at w + k * ldw, its columns adjacent. c has row
 * stride ldc. At most MAX_ROWS rows; above MAX_PAIR_ROWS, two vectors are multiplied one after the other.
 *
 * In AMX tiles `column` is 1, num_units a multiple of UNITS_OF_BLOCK, and rows are read and written up to a multiple of 16. */
struct product {
    enum weight_kind kind;
    const unit *x;
    long row, column;
    const int32_t *w;
    long ldw, num_units;
    void *c;
    long ldc;
    int accumulates;
    long prefetch_distance; /* bytes ahead in w; 0: none */
    long prefetch_stride;   /* one unit in this many is prefetched */
    long prefetch_phase;    /* units before the first that is prefetched */
    long more_tiles;        /* tiles of w after the first, adjacent in memory; so are their sums in c */
};

void multiply(const struct product *product, int rows, int vectors);

/* Configure and release this thread's AMX tiles, around calls of `multiply`; parallel loops do both (70 ns). */
#ifdef __AMX_TILE__
void begin_tiles(void);
void end_tiles(void);
#else
INLINE void begin_tiles(void) {}
INLINE void end_tiles(void) {}
#endif

/* A packed weight [columns, depth] with its epilogue: y = activation(x W^T + bias). */
struct weight {
    const int32_t
        *packed;      /* [columns / n][depth in units][n], n 16 * VECTORS; units to a multiple of UNITS_OF_BLOCK; WEIGHT_INT4:
                            * see int4.h */
    const bf16 *bias; /* or null */
    const float *scales;  /* [columns]: WEIGHT_INT8 is integers times scales; else null */
    const float *offsets; /* [columns]: 128 times the sum of a column's integers; null but for WEIGHT_INT8 */
    long columns, depth, activation;
    enum weight_kind kind;
    long group;    /* inputs of a group of WEIGHT_INT4 */
    int has_zeros; /* of WEIGHT_INT4: see int4.h */
};

/* `peregrine_linear`, with the loop `first` in front of its own: while one thread is at a long item of `first`, the others
 * use the memory bandwidth. */
void linear_beside(const struct loop *first, const bf16 *x, long ldx, const struct weight *w, bf16 *y, long rows);

/* `peregrine_linear` with the same values stored as float32; no residual. */
void linear_to_floats(const bf16 *x, long ldx, const struct weight *w, float *y, long rows);

/* What pages of the KV cache hold. */
enum kv_kind { KV_BF16, KV_INT8, KV_FP8 };

/* One layer's pages of the KV cache: see kv_pages.h. */
struct pages {
    char *data;
    enum kv_kind kind;
    long block_size, num_kv_heads, head_dim;
};

/* The arguments of `peregrine_attention`. */
struct attention {
    const bf16 *q;
    long ldq;
    struct pages pages;
    const int64_t *block_tables;
    long max_blocks;
    const int64_t *query_starts, *context_lengths;
    long num_sequences, num_kv_heads, group, head_dim;
    const float *slopes;
    bf16 *out;
    long ldo;
};

/* Attention; `run` runs its main loop, and may run another loop beside it. */
typedef void run_loop(const struct loop *loop, void *args);
void attend(const struct attention *a, run_loop *run, void *args);

struct layer {
    const bf16 *attention_norm[2], *mlp_norm[2]; /* weight and bias; mlp_norm null: the MLP uses attention's norm */
    const struct weight *qkv, *up, *dense, *down;
    const float *slopes;
    long num_heads, num_kv_heads, head_dim;
    float epsilon;
};

struct step {
    const int64_t *slots, *block_tables, *query_starts, *context_lengths;
    long rows, max_blocks, num_sequences;
};

/* The exported operations; arguments are documented at their definitions. */
void peregrine_layer_norm(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *out, long rows, long columns,
                          float epsilon);
void peregrine_linear(const bf16 *x, long ldx, const struct weight *w, const bf16 *residual, bf16 *y, long rows);
void peregrine_rotary_kv_write(bf16 *qkv, long ld, const bf16 *cos, const bf16 *sin, const int64_t *slots, void *pages,
                               long tokens, long num_heads, long num_kv_heads, long head_dim, long block_size, long kind);
void peregrine_attention(const bf16 *q, long ldq, const void *pages, const int64_t *block_tables, long max_blocks,
                         long block_size, long kind, const int64_t *query_starts, const int64_t *context_lengths,
                         long num_sequences, long num_kv_heads, long group, long head_dim, const float *slopes, bf16 *out,
                         long ldo);
void peregrine_parallel_layer(const struct layer *l, const struct step *step, const bf16 *cos, const bf16 *sin, const bf16 *x,
                              void *pages, bf16 *out, long block_size, long kind, long has_residual);
