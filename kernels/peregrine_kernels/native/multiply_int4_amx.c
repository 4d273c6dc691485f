/* The product of up to 32 rows and a tile of 4-bit integers in AMX tiles: each group's sums go through memory, to be scaled. */
#include "int4.h"

#ifdef __AMX_TILE__

enum {
    TILE_UNITS = LANES * UNITS_OF_BLOCK,
    GROUPS_AT_ONCE = 2, /* whose sums are stored: with the weights and inputs of a pass they fit into the L1 cache */
};

/* Units of w in an AMX tile: all, or half of them and zeros where a group is no multiple. */
INLINE long units_of_tile(const struct weight *w) { return units_of(w) % UNITS_OF_BLOCK ? SPAN : UNITS_OF_BLOCK; }
INLINE long tiles_of_group(const struct weight *w) { return units_of(w) / units_of_tile(w); }

long expanded_bytes(const struct weight *w, long num_groups) {
    return num_groups * VECTORS * tiles_of_group(w) * TILE_UNITS * sizeof(int32_t);
}

/* Signed integers, [VECTORS][groups][tiles of the group][units][LANES]. */
void expand(const struct weight *w, const uint8_t *groups, long num_groups, int32_t *out) {
    const ivec eight = _mm512_set1_epi8(8);
    const long units = units_of_tile(w), tiles = num_groups * tiles_of_group(w);
    for (; num_groups--; groups += group_bytes(w))
        for (long begin = 0; begin < units_of(w); begin += units, out += TILE_UNITS) {
            for (long k = 0; k < units; k += 2)
                for (int v = 0; v < VECTORS; v++) {
                    ivec both = iload((const int32_t *)(groups + (begin + k) * UNIT_LINE) + v * LANES);
                    int32_t *to = out + v * tiles * TILE_UNITS + k * LANES;
                    istore(to, _mm512_sub_epi8(low_nibbles(both), eight));
                    istore(to + LANES, _mm512_sub_epi8(high_nibbles(both), eight));
                }
            for (long k = units; k < UNITS_OF_BLOCK; k++)
                for (int v = 0; v < VECTORS; v++) istore(out + v * tiles * TILE_UNITS + k * LANES, izero());
        }
}

/* A compiler barrier: the compiler does not know which memory tile instructions read and write. */
INLINE void finish_memory(void) { __asm__ volatile("" ::: "memory"); }

/* Prefetches some lines of the group that is `prefetch_distance` ahead. (Inputs are not: prefetching each row's line, which a
 * tile load reads next, makes a pass a third slower.) */
INLINE void fetch(const struct int4_product *p, long group) {
    const char *ahead = (const char *)p->groups + group * group_bytes(p->w) + p->prefetch_distance;
    for (long at = p->prefetch_phase * 64; at < group_bytes(p->w); at += p->prefetch_stride * 64)
        _mm_prefetch(ahead + at, _MM_HINT_T1);
}

/* The sums of one group, of up to two tiles of rows by two vectors of columns. */
typedef int32_t sums_of_group[2][VECTORS][LANES][LANES];

/* Tiles 0 to 3 hold sums, 4 and 5 inputs, 6 and 7 weights. */
INLINE void sum_group(const struct int4_product *p, long group, sums_of_group sums, const int inputs) {
    const long tiles = tiles_of_group(p->w), units = units_of_tile(p->w), row_bytes = p->row * sizeof(unit);
    const int32_t *first = p->expanded + group * tiles * TILE_UNITS, *second = first + p->num_groups * tiles * TILE_UNITS;
    const unit *x = p->x + group * units_of(p->w);
    _tile_zero(0);
    _tile_zero(1);
    if (inputs == 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long t = 0; t < tiles; t++, first += TILE_UNITS, second += TILE_UNITS, x += units) {
        _tile_loadd(4, x, row_bytes);
        _tile_loadd(6, first, LANES * sizeof(unit));
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, second, LANES * sizeof(unit));
        _tile_dpbssd(1, 4, 7);
        if (inputs == 1) continue;
        _tile_loadd(5, x + LANES * p->row, row_bytes);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, sums[0][0], sizeof **sums[0]);
    _tile_stored(1, sums[0][1], sizeof **sums[0]);
    if (inputs == 2) {
        _tile_stored(2, sums[1][0], sizeof **sums[0]);
        _tile_stored(3, sums[1][1], sizeof **sums[0]);
    }
    finish_memory();
}

/* Adds some groups' sums of a tile of rows and vector v of columns, their totals in registers: see `end_group`. */
INLINE void add_groups(const struct int4_product *p, long first, long count, sums_of_group *sums, int input, int v,
                       const int rows, const int has_zeros) {
    float *c = p->c + input * LANES * TILE + v * LANES;
    vec totals[LANES];
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++) totals[m] = p->accumulates || first ? load(c + m * TILE) : zero();
    for (long i = 0; i < count; i++) {
        const uint8_t *group = p->groups + (first + i) * group_bytes(p->w);
        const int32_t *eights = p->eights + input * LANES * p->ld_eights + first + i;
        vec scales = parameters(p->w, group, 0, v), zeros = has_zeros ? parameters(p->w, group, 1, v) : zero();
#pragma GCC unroll 16
        for (int m = 0; m < rows; m++) {
            vec sum = of_integers(iload(sums[i][input][v][m]));
            if (has_zeros) sum = fmadd(zeros, of_integers(isplat(eights[m * p->ld_eights])), sum);
            totals[m] = fmadd(sum, scales, totals[m]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++) store(c + m * TILE, totals[m]);
}

INLINE void add_all(const struct int4_product *p, long first, long count, sums_of_group *sums, int rows, const int has_zeros) {
    for (int input = 0; input * LANES < rows; input++)
        for (int v = 0; v < VECTORS; v++)
            if (rows - input * LANES <= LANES / 2)
                add_groups(p, first, count, sums, input, v, LANES / 2, has_zeros);
            else
                add_groups(p, first, count, sums, input, v, LANES, has_zeros);
}

void multiply_int4_expanded(const struct int4_product *p, int rows) {
    sums_of_group *sums = scratch(SCRATCH_GROUPS, GROUPS_AT_ONCE * sizeof *sums);
    for (long first = 0; first < p->num_groups; first += GROUPS_AT_ONCE) {
        long count = p->num_groups - first < GROUPS_AT_ONCE ? p->num_groups - first : GROUPS_AT_ONCE;
        for (long i = 0; i < count; i++) {
            fetch(p, first + i);
            if (rows > LANES)
                sum_group(p, first + i, sums[i], 2);
            else
                sum_group(p, first + i, sums[i], 1);
        }
        if (p->w->has_zeros)
            add_all(p, first, count, sums, rows, 1);
        else
            add_all(p, first, count, sums, rows, 0);
    }
}
#endif
