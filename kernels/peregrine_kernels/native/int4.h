/* Weights of 4-bit integers in groups of inputs (W4A8): the layout of a packed weight, and the product with it.
 *
 * A tile is a sequence of groups, each [group / 8][TILE][4] bytes of two integers (of unit 2 j in the low four bits, of unit
 * 2 j + 1 in the high ones), then TILE scales, then, if the weight has zeros, TILE zeros; both bfloat16. A weight is
 * (integer - 8 - 8 zero) * scale. Integers are unsigned and inputs signed, so that AVX2's pairs add in 16 bits without
 * saturation.
 *
 * The sum over a group is an integer, hence exact; groups are added in order, in float32, however many rows there are: a row's
 * result does not depend on the rows beside it. */
#pragma once

#include "linear.h"

enum {
    SPAN = 8,                                   /* units: a group is a multiple */
    UNIT_LINE = TILE * 2,                       /* bytes of a unit in a packed tile */
    PARAMETER_LINE = TILE * sizeof(bf16),       /* bytes of the scales, or of the zeros, of a group */
    MAX_FEW_ROWS = VECTORS == 2 ? 8 : MAX_ROWS, /* of a pass with the weight as it is packed */
    /* With more rows the weight is expanded first. On AVX2 two passes cost less without: an expanded unit is stored and loaded. */
    MAX_PACKED_ROWS = (VECTORS == 2 ? 1 : 2) * MAX_FEW_ROWS,
};

struct int4_product {
    const struct weight *w;
    const uint8_t *groups;   /* the first group, as packed */
    const int32_t *expanded; /* the groups' integers, as `expand` leaves them; null: they are read as packed */
    const unit *x;
    long row, column;      /* strides of x: see `struct product` */
    const int32_t *eights; /* of each row and group: -8 times the sum of its inputs */
    long ld_eights, num_groups;
    float *c; /* [rows][TILE] */
    int accumulates;
    long prefetch_distance; /* bytes ahead of the group */
    long prefetch_stride;   /* lines: one in this many */
    long prefetch_phase;    /* lines before the first */
};

INLINE long num_groups(const struct weight *w) { return w->depth / w->group; }
INLINE long units_of(const struct weight *w) { return w->group / 4; }
INLINE long group_bytes(const struct weight *w) { return units_of(w) * UNIT_LINE + (w->has_zeros ? 2 : 1) * PARAMETER_LINE; }

/* Vector v of the scales (`at` 0) or of the zeros (`at` 1) of a group. */
INLINE vec parameters(const struct weight *w, const uint8_t *group, int at, int v) {
    return load_bf16((const bf16 *)(group + units_of(w) * UNIT_LINE + at * PARAMETER_LINE) + v * LANES, LANES);
}

/* Bytes that `expand` needs for so many groups. */
long expanded_bytes(const struct weight *w, long num_groups);

/* Writes the integers of some groups a byte each, as `multiply_int4` reads them. */
void expand(const struct weight *w, const uint8_t *groups, long num_groups, int32_t *out);

/* c (+)= x times the groups as they are packed; at most MAX_FEW_ROWS rows. */
void multiply_int4(const struct int4_product *product, int rows);

/* The same for expanded groups; at most MAX_ROWS rows. */
void multiply_int4_expanded(const struct int4_product *product, int rows);
