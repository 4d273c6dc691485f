/* Declarations common to the linears of all weight formats (linear.c, linear_int4.c, epilogue.c). */
#pragma once

#include "native.h"

enum {
    TILE = VECTORS * LANES, /* columns */
    HAS_TILES = UNITS_OF_BLOCK > 1,
    ROWS_AT_ONCE = HAS_TILES ? 256 : 252, /* rows of x that are packed together: 1 MiB at K = 2048, 2 as float32 */
    SUMS_OF_TILE = TILE * ROWS_AT_ONCE,
    PADDING = HAS_TILES ? LANES : 0, /* units: a cache line between rows, against conflict misses */
    /* Maximum rows for which the epilogue of several tiles is deferred and run together; running it after each tile
     * interrupts the weight stream. */
    MAX_DEFERRED_ROWS = HAS_TILES ? 0 : 1,
};

/* One linear of an input; residual and y are [rows, columns], residual may be null. */
struct output {
    const struct weight *w;
    const bf16 *residual;
    bf16 *y;
    float *wide; /* if not null, written instead of y: the same values as float32 */
};

/* Rows of an input in the layout that `multiply` reads, and the linear that they go through. */
struct packed {
    struct output to;
    const bf16 *source; /* [rows, depth] */
    long ld, rows, depth;
    enum weight_kind kind;
    long num_units;
    const int32_t *plain;    /* the source, or its quantized copy */
    long plain_row;          /* row stride of `plain` */
    const unit *x;           /* the operand of `multiply`: `plain`, or packed rows; null: each thread packs its own copy */
    long row, column, step;  /* strides of x, in units; rows a call of `multiply` */
    long begin, end;         /* the units that are multiplied in this part */
    int32_t *sums;           /* of all tiles, if the units are multiplied in parts; or null */
    const float *row_scales; /* [rows]: of each quantized row */
    const int32_t *eights;   /* WEIGHT_INT4: of each row and group, -8 times the sum of the quantized inputs */
    long ld_eights;
};

/* This thread's memory for packed rows. */
unit *packed_rows(const struct packed *p);

/* Multiplies tiles of WEIGHT_INT4; a `range_task` of `struct packed`. */
void multiply_int4_range(void *args, long tile, long end);

/* Prefetches what the epilogue reads and writes: it would stall on each line that is in no cache. */
void prefetch_outputs(const struct output *to, long column, long row, int rows);

/* Runs the epilogue of a complete tile, one vector of columns after the other. */
void finish_tile(const struct packed *p, const int32_t *sums, long tile, long row, int rows);
