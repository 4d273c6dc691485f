/* The product of a few rows and one or two vectors of columns, all accumulators in registers. */
#include "native.h"

#ifndef __AMX_TILE__

/* Multiplies `vectors` vectors of columns from vector `first` on. `row` is p->row, a compile-time constant if it is 1: a dozen
 * rows at strides unknown to the compiler need more registers than there are. */
INLINE void multiply_rows(const struct product *p, const int first, const int rows, const int vectors,
                          const enum weight_kind kind, const long row) {
    /* Every loop over rows is unrolled; otherwise clang keeps the accumulators in memory. */
    ivec sums[MAX_ROWS][2];
    const int32_t *w = p->w + first * LANES;
    int32_t *c = (int32_t *)p->c + first * LANES;
    const long column = p->column, ldw = p->ldw, num_units = p->num_units, distance = p->prefetch_distance,
               stride = p->prefetch_stride;
    long until = distance ? p->prefetch_phase + 1 : INT64_MAX;
    for (long tile = 0; tile <= p->more_tiles; tile++, c += rows * p->ldc) {
        const unit *x = p->x;
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++)
            for (int v = 0; v < 2; v++)
                sums[m][v] = p->accumulates && v < vectors ? iload(c + m * p->ldc + v * LANES) : izero();
        for (long k = 0; k < num_units; k++, w += ldw, x += column) {
            if (--until == 0) {
                until = stride;
                for (int v = 0; v < vectors; v++) _mm_prefetch((const char *)(w + v * LANES) + distance, _MM_HINT_T1);
            }
            add_unit(sums, w, x, row, rows, vectors, kind);
        }
        join_sums(sums, rows, vectors, kind);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++)
            for (int v = 0; v < vectors; v++) istore(c + m * p->ldc + v * LANES, sums[m][v]);
    }
}

INLINE void multiply_kind(const struct product *p, const int first, const int rows, const int vectors, const long row) {
    if (p->kind == WEIGHT_INT8)
        multiply_rows(p, first, rows, vectors, WEIGHT_INT8, row);
    else
        multiply_rows(p, first, rows, vectors, WEIGHT_BF16, row);
}

INLINE void multiply_any(const struct product *p, const int first, const int rows, const int vectors) {
    if (p->row == 1)
        multiply_kind(p, first, rows, vectors, 1);
    else
        multiply_kind(p, first, rows, vectors, p->row);
}

#define CASE(rows)                           \
    case rows:                               \
        if (vectors == 2)                    \
            multiply_any(p, first, rows, 2); \
        else                                 \
            multiply_any(p, first, rows, 1); \
        break;

#define CASE_OF_ONE(rows) \
    case rows: multiply_any(p, first, rows, 1); break;

static void multiply_from(const struct product *p, int first, int rows, int vectors) {
    switch (rows) {
#ifdef __AVX512BF16__
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#else
        CASE(1) CASE(2) CASE(3) CASE_OF_ONE(4) CASE_OF_ONE(5) CASE_OF_ONE(6)
#endif
    }
}

void multiply(const struct product *p, int rows, int vectors) {
    int at_once = rows > MAX_PAIR_ROWS ? 1 : vectors;
    for (int first = 0; first < vectors; first += at_once) multiply_from(p, first, rows, at_once);
}
#endif
