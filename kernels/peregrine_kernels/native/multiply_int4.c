/* The product of a few rows and a tile of 4-bit integers, a group's sums in registers. */
#include "int4.h"

/* totals += scale (sums - 8 zero (sum of inputs)), for each row; sums are of integers less 8. */
INLINE void end_group(const struct int4_product *p, const uint8_t *group, const int32_t *eights, ivec sums[][VECTORS],
                      const int rows, const int has_zeros) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) {
        vec scales = parameters(p->w, group, 0, v), zeros = has_zeros ? parameters(p->w, group, 1, v) : zero();
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            vec sum = of_integers(sums[m][v]);
            if (has_zeros) sum = fmadd(zeros, of_integers(isplat(eights[m * p->ld_eights])), sum);
            float *total = p->c + m * TILE + v * LANES;
            store(total, fmadd(sum, scales, load(total)));
        }
    }
}

/* Prefetches the lines from byte `begin` to `end` of the group that is `prefetch_distance` ahead: all, or some of them. */
INLINE void fetch(const struct int4_product *p, const uint8_t *group, long begin, const long end) {
    const char *ahead = (const char *)group + p->prefetch_distance;
    for (begin += p->prefetch_phase * 64; begin < end; begin += p->prefetch_stride * 64)
        _mm_prefetch(ahead + begin, _MM_HINT_T1);
}

/* The same for a span of units from unit k on. */
INLINE void fetch_span(const struct int4_product *p, const uint8_t *group, long k) {
    if (p->prefetch_stride > 1) {
        fetch(p, group, k * UNIT_LINE, (k + SPAN) * UNIT_LINE);
        return;
    }
#pragma GCC unroll 8
    for (int at = 0; at < SPAN * UNIT_LINE; at += 64)
        _mm_prefetch((const char *)group + k * UNIT_LINE + p->prefetch_distance + at, _MM_HINT_T1);
}

/* `row` and `column` are those of p: compile-time constants where rows are packed. */
INLINE void multiply_rows(const struct int4_product *p, const int rows, const int is_expanded, const long row,
                          const long column) {
    const long units = units_of(p->w), bytes = group_bytes(p->w);
    const uint8_t *group = p->groups;
    const int32_t *expanded = p->expanded, *eights = p->eights;
    const unit *x = p->x;
    for (long i = 0; i < p->num_groups; i++, group += bytes, eights++, x += units * column) {
        ivec sums[MAX_ROWS][VECTORS];
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sums[m][v] = isplat(eights[m * p->ld_eights]);
        if (is_expanded) {
            fetch(p, group, 0, bytes);
            add_expanded(sums, expanded, x, column, rows, units);
            expanded += units * TILE;
        } else
            for (long k = 0; k < units; k += SPAN) {
                fetch_span(p, group, k);
                add_span(sums, (const int32_t *)(group + k * UNIT_LINE), x + k * column, row, column, rows);
            }
        if (!is_expanded) fetch(p, group, units * UNIT_LINE, bytes);
        if (p->w->has_zeros)
            end_group(p, group, eights, sums, rows, 1);
        else
            end_group(p, group, eights, sums, rows, 0);
    }
}

INLINE void multiply_packed(const struct int4_product *p, const int rows) {
    if (p->row == 1)
        multiply_rows(p, rows, 0, 1, rows);
    else
        multiply_rows(p, rows, 0, p->row, 1);
}

static void begin(const struct int4_product *p, int rows) {
    for (int i = 0; !p->accumulates && i < rows * VECTORS; i++) store(p->c + i * LANES, zero());
}

#define CASE(rows) \
    case rows: multiply_packed(p, rows); break;

void multiply_int4(const struct int4_product *p, int rows) {
    begin(p, rows);
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
#ifdef __AVX512BF16__
        CASE(7)
        CASE(8)
#endif
    }
}

#ifndef __AMX_TILE__

#define CASE_OF_EXPANDED(rows) \
    case rows: multiply_rows(p, rows, 1, 1, rows); break;

void multiply_int4_expanded(const struct int4_product *p, int rows) {
    begin(p, rows);
    switch (rows) {
        CASE_OF_EXPANDED(1)
        CASE_OF_EXPANDED(2)
        CASE_OF_EXPANDED(3)
        CASE_OF_EXPANDED(4)
        CASE_OF_EXPANDED(5)
        CASE_OF_EXPANDED(6)
#ifdef __AVX512BF16__
        CASE_OF_EXPANDED(7)
        CASE_OF_EXPANDED(8)
        CASE_OF_EXPANDED(9)
        CASE_OF_EXPANDED(10)
        CASE_OF_EXPANDED(11)
        CASE_OF_EXPANDED(12)
        CASE_OF_EXPANDED(13)
        CASE_OF_EXPANDED(14)
#endif
    }
}

long expanded_bytes(const struct weight *w, long num_groups) { return num_groups * units_of(w) * TILE * sizeof(int32_t); }

void expand(const struct weight *w, const uint8_t *groups, long num_groups, int32_t *out) {
    for (; num_groups--; groups += group_bytes(w))
        for (long k = 0; k < units_of(w); k += 2, out += 2 * TILE)
            for (int v = 0; v < VECTORS; v++) {
                ivec both = iload((const int32_t *)(groups + k * UNIT_LINE) + v * LANES);
                istore(out + v * LANES, low_nibbles(both));
                istore(out + TILE + v * LANES, high_nibbles(both));
            }
}
#endif
