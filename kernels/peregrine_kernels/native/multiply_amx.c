/* The product of up to 32 rows and two vectors of columns in AMX tiles of 16 rows by 64 bytes.
 *
 * A packed weight has the layout that the tile instructions read: 16 units of 16 columns. An input tile is 16 units of 16
 * rows. */
#include "native.h"

#ifdef __AMX_TILE__

enum { UNIT_BYTES = sizeof(unit) };

/* As LDTILECFG reads it (Intel's Software Developer's Manual, volume 1, chapter 18): every tile has its full size. */
static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} whole_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

void begin_tiles(void) { _tile_loadconfig(&whole_tiles); }
void end_tiles(void) { _tile_release(); }

/* A compiler barrier: the compiler does not know which memory tile instructions read and write. */
INLINE void finish_memory(void) { __asm__ volatile("" ::: "memory"); }

/* Tiles 0 to 3 hold sums, 4 and 5 inputs, 6 and 7 weights. Macros, because the instructions take tile numbers as literals. */
#define EACH_SUM(DO)                    \
    DO(0, 4, 6, 0, 0)                   \
    if (vectors == 2) DO(1, 4, 7, 0, 1) \
    if (inputs == 2) DO(2, 5, 6, 1, 0)  \
    if (inputs == 2 && vectors == 2) DO(3, 5, 7, 1, 1)

#define BEGIN(sum, input, weight, m, v)                                                  \
    {                                                                                    \
        if (p.accumulates)                                                               \
            _tile_loadd(sum, c + (m) * LANES * p.ldc + (v) * LANES, p.ldc * UNIT_BYTES); \
        else                                                                             \
            _tile_zero(sum);                                                             \
    }
#define ADD(sum, input, weight, m, v)           \
    {                                           \
        if (kind == WEIGHT_INT8)                \
            _tile_dpbusd(sum, input, weight);   \
        else                                    \
            _tile_dpbf16ps(sum, input, weight); \
    }
#define END(sum, input, weight, m, v)                                                 \
    {                                                                                 \
        _tile_stored(sum, c + (m) * LANES * p.ldc + (v) * LANES, p.ldc * UNIT_BYTES); \
    }

/* Prefetches the lines of one vector of columns from unit `next` to `until`; returns the next unit to prefetch. */
INLINE long fetch(struct product p, int v, long next, long until) {
    for (; next < until; next += p.prefetch_stride) {
        const int32_t *w = p.w + next * p.ldw + v * LANES;
        _mm_prefetch((const char *)w + p.prefetch_distance, _MM_HINT_T1);
    }
    return next;
}

/* Half of a tile's lines are prefetched before it is loaded and half after; all at once would delay the loads. */
#define LOAD_WEIGHTS(weight, v)                                   \
    {                                                             \
        long half = fetch(p, v, next, k + UNITS_OF_BLOCK / 2);    \
        _tile_loadd(weight, w + (v) * LANES, p.ldw * UNIT_BYTES); \
        after = fetch(p, v, half, k + UNITS_OF_BLOCK);            \
    }

INLINE void multiply_tiles(struct product p, const int inputs, const int vectors, const enum weight_kind kind) {
    int32_t *c = p.c;
    long next = p.prefetch_distance ? p.prefetch_phase : p.num_units, after = next;
    finish_memory();
    EACH_SUM(BEGIN)
    for (long k = 0; k < p.num_units; k += UNITS_OF_BLOCK, next = after) {
        const int32_t *w = p.w + k * p.ldw;
        const unit *x = p.x + k;
        _tile_loadd(4, x, p.row * UNIT_BYTES);
        if (inputs == 2) _tile_loadd(5, x + LANES * p.row, p.row * UNIT_BYTES);
        LOAD_WEIGHTS(6, 0)
        if (vectors == 2) LOAD_WEIGHTS(7, 1)
        EACH_SUM(ADD)
    }
    EACH_SUM(END)
    finish_memory();
}

INLINE void multiply_kind(struct product p, const int inputs, const int vectors) {
    if (p.kind == WEIGHT_INT8)
        multiply_tiles(p, inputs, vectors, WEIGHT_INT8);
    else
        multiply_tiles(p, inputs, vectors, WEIGHT_BF16);
}

void multiply(const struct product *product, int rows, int vectors) {
    struct product p = *product;
    if (rows > LANES)
        vectors == 2 ? multiply_kind(p, 2, 2) : multiply_kind(p, 2, 1);
    else
        vectors == 2 ? multiply_kind(p, 1, 2) : multiply_kind(p, 1, 1);
}

#endif
