/* The loops of a linear of 4-bit integers over tiles, chunks of a tile's groups, and rows. */
#include "int4.h"

enum {
    UNITS_AT_ONCE = 128, /* of a tile, expanded for all rows: 16 KiB stay in the L1 cache beside x */
    /* Bytes. At 2 KiB a single row takes 18 % longer; from 4 to 12 all are alike. On AVX2 one line in eight, best for one row of
     * int8, makes one row of int4 45 % slower. */
    PREFETCH_DISTANCE = 6144,
};

static const uint8_t *groups_of(const struct packed *p, long tile, long group) {
    const struct weight *w = p->to.w;
    return (const uint8_t *)w->packed + (tile * num_groups(w) + group) * group_bytes(w);
}

static long rows_from(const struct packed *p, long m) { return p->rows - m < p->step ? p->rows - m : p->step; }

/* The product of a pass of rows, from row m on, with `count` groups of a tile. */
static struct int4_product product_of(const struct packed *p, long tile, long group, long count, long m, float *sums) {
    const struct weight *w = p->to.w;
    const unit *input = p->x ? p->x : packed_rows(p);
    long k = group * units_of(w), rows = rows_from(p, m);
    return (struct int4_product){
        .w = w,
        .groups = groups_of(p, tile, group),
        .x = p->column == 1 ? input + m * p->row + k : input + m * p->num_units + k * rows,
        .row = p->row,
        .column = p->column == 1 ? 1 : rows,
        .eights = p->eights + m * p->ld_eights + group,
        .ld_eights = p->ld_eights,
        .num_groups = count,
        .c = sums + m * TILE,
        .accumulates = group > 0,
    };
}

/* All rows in one pass over the tile as it is packed. */
static void multiply_packed(const struct packed *p, long tile, float *sums) {
    struct int4_product product = product_of(p, tile, 0, num_groups(p->to.w), 0, sums);
    product.prefetch_distance = PREFETCH_DISTANCE, product.prefetch_stride = 1;
    multiply_int4(&product, p->rows);
}

static void multiply_packed_range(const struct packed *p, long tile, long end) {
    float *sums = scratch(SCRATCH_SUMS, SUMS_OF_TILE * sizeof(float));
    long most = p->rows <= MAX_DEFERRED_ROWS ? ROWS_AT_ONCE / p->rows : 1;
    for (long taken; tile < end; tile += taken) {
        taken = end - tile < most ? end - tile : most;
        if (taken == 1) prefetch_outputs(&p->to, tile * TILE, 0, p->rows);
        for (long i = 0; i < taken; i++) multiply_packed(p, tile + i, sums + i * p->rows * TILE);
        for (long i = 0; i < taken; i++) finish_tile(p, (int32_t *)sums + i * p->rows * TILE, tile + i, 0, p->rows);
    }
}

/* Takes some groups at a time, for all rows, and expands them unless passes are few; meanwhile the next ones are prefetched,
 * those of the next tile after the last. */
static void multiply_in_passes(const struct packed *p, long tile, float *sums) {
    const struct weight *w = p->to.w;
    long at_once = UNITS_AT_ONCE > units_of(w) ? UNITS_AT_ONCE / units_of(w) : 1;
    long first = p->begin / units_of(w), end = p->end < p->num_units ? p->end / units_of(w) : num_groups(w);
    int32_t *expanded = p->rows > MAX_PACKED_ROWS ? scratch(SCRATCH_EXPANDED, expanded_bytes(w, at_once)) : 0;
    for (long group = first; group < end; group += at_once) {
        long count = end - group < at_once ? end - group : at_once;
        int is_last = group + count == num_groups(w);
        const uint8_t *next = group + count < end ? groups_of(p, tile, group + count) : groups_of(p, tile + 1, first);
        if (expanded) expand(w, groups_of(p, tile, group), count, expanded);
        for (long m = 0; m < p->rows; m += p->step) {
            struct int4_product product = product_of(p, tile, group, count, m, sums);
            product.expanded = expanded;
            product.prefetch_distance = next - groups_of(p, tile, group);
            product.prefetch_stride = ceil_div(p->rows, p->step), product.prefetch_phase = m / p->step;
            if (is_last) prefetch_outputs(&p->to, tile * TILE, m, rows_from(p, m));
            (expanded ? multiply_int4_expanded : multiply_int4)(&product, rows_from(p, m));
            if (is_last) finish_tile(p, (int32_t *)sums + m * TILE, tile, m, rows_from(p, m));
        }
    }
}

static void multiply_in_passes_range(const struct packed *p, long tile, long end) {
    float *own = p->sums ? 0 : scratch(SCRATCH_SUMS, SUMS_OF_TILE * sizeof(float));
    for (; tile < end; tile++) multiply_in_passes(p, tile, own ? own : (float *)p->sums + tile * SUMS_OF_TILE);
}

void multiply_int4_range(void *args, long tile, long end) {
    const struct packed *p = args;
    if (p->rows <= MAX_FEW_ROWS && !p->sums)
        multiply_packed_range(p, tile, end);
    else
        multiply_in_passes_range(p, tile, end);
}
