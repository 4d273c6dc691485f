/* Packing: from weights as formats have them, row by row, to the tiles that the linears read. */
#include "int4.h"

#include <string.h>

enum { NIBBLES = 8 /* of a word */ };

/* Rows of 32-bit words, to be transposed. */
struct words {
    const int32_t *x; /* [rows, count] */
    long rows, count;
};

/* Up to LANES words from `word` on of LANES rows from `row` on: out[i] holds word i of each; zeros past the ends. */
INLINE void transposed(const struct words *words, long row, long word, ivec out[LANES]) {
    for (int i = 0; i < LANES; i++) {
        long at = (row + i) * words->count + word;
        out[i] = row + i < words->rows ? iload_first(words->x + at, words->count - word) : izero();
    }
    transpose(out);
}

struct packing {
    struct words words;
    long padded; /* units of a packed row */
    int32_t *out;
    float *offsets; /* [rows], or null */
};

static void add_row(const struct packing *p, long row) {
    const int8_t *integers = (const int8_t *)(p->words.x + row * p->words.count);
    int32_t sum = 0;
    for (long i = 0; i < 4 * p->words.count; i++) sum += integers[i];
    p->offsets[row] = 128.0f * sum;
}

static void pack_tile(void *args, long tile) {
    const struct packing *p = args;
    int32_t *out = p->out + tile * p->padded * TILE;
    for (long row = tile * TILE; p->offsets && row < (tile + 1) * TILE && row < p->words.rows; row++) add_row(p, row);
    for (long unit = 0; unit < p->padded; unit += LANES)
        for (int v = 0; v < VECTORS; v++) {
            ivec columns[LANES];
            transposed(&p->words, tile * TILE + v * LANES, unit, columns);
            for (int i = 0; i < LANES && unit + i < p->padded; i++) istore(out + (unit + i) * TILE + v * LANES, columns[i]);
        }
}

/* x [rows, units] of 32 bits -> out [rows / TILE, padded, TILE], both rounded up, zeros past the ends; offsets [rows]: 128 times
 * the sum of each row's 8-bit integers; or null. */
EXPORT void peregrine_pack(const int32_t *x, long rows, long units, int32_t *out, float *offsets) {
    long padded = ceil_div(units, UNITS_OF_BLOCK) * UNITS_OF_BLOCK, tiles = ceil_div(rows, TILE);
    struct packing packing = {{x, rows, units}, padded, out, offsets};
    parallel_for(tiles, pack_tile, &packing);
}

struct int4_packing {
    struct words words;
    const bf16 *scales, *zeros; /* [rows, groups]; zeros: or null */
    struct weight weight;       /* the sizes of what is packed */
    uint8_t *out;
};

/* Four 4-bit integers as bytes. */
INLINE uint32_t spread(uint32_t nibbles) {
    nibbles = (nibbles | nibbles << 8) & 0x00FF00FF;
    return (nibbles | nibbles << 4) & 0x0F0F0F0F;
}

/* A word of 8 integers in their order -> unit 2 j in the low halves of its bytes, unit 2 j + 1 in the high ones. */
INLINE uint32_t paired(uint32_t word) { return spread(word & 0xFFFF) | spread(word >> 16) << 4; }

static void pack_words(const struct int4_packing *p, long tile, uint8_t *out) {
    long words_of_group = p->weight.group / NIBBLES;
    for (long word = 0; word < p->words.count; word += LANES)
        for (int v = 0; v < VECTORS; v++) {
            ivec columns[LANES];
            transposed(&p->words, tile * TILE + v * LANES, word, columns);
            for (int i = 0; i < LANES && word + i < p->words.count; i++) {
                long group = (word + i) / words_of_group, line = (word + i) % words_of_group;
                int32_t lanes[LANES];
                istore(lanes, columns[i]);
                for (int lane = 0; lane < LANES; lane++) lanes[lane] = paired(lanes[lane]);
                memcpy(out + group * group_bytes(&p->weight) + (line * TILE + v * LANES) * sizeof *lanes, lanes, sizeof lanes);
            }
        }
}

/* Scales (`at` 0) or zeros (`at` 1) of a tile's groups. */
static void pack_parameters(const struct int4_packing *p, const bf16 *parameters, int at, long tile, uint8_t *out) {
    long groups = num_groups(&p->weight), first = tile * TILE;
    for (long group = 0; group < groups; group++) {
        bf16 *to = (bf16 *)(out + group * group_bytes(&p->weight) + units_of(&p->weight) * UNIT_LINE + at * PARAMETER_LINE);
        for (long row = first; row < first + TILE; row++)
            to[row - first] = row < p->words.rows ? parameters[row * groups + group] : 0;
    }
}

static void pack_int4_tile(void *args, long tile) {
    const struct int4_packing *p = args;
    uint8_t *out = p->out + tile * num_groups(&p->weight) * group_bytes(&p->weight);
    pack_words(p, tile, out);
    pack_parameters(p, p->scales, 0, tile, out);
    if (p->zeros) pack_parameters(p, p->zeros, 1, tile, out);
}

/* x [rows, depth / 8] of 8 integers in 32 bits, the first in the lowest; scales and zeros (or null) [rows, depth / group]
 * -> out: see int4.h; rows past the last are zeros. */
EXPORT void peregrine_pack_int4(const int32_t *x, const bf16 *scales, const bf16 *zeros, long rows, long depth, long group,
                                uint8_t *out) {
    struct weight weight = {.depth = depth, .group = group, .has_zeros = zeros != 0};
    struct int4_packing packing = {{x, rows, depth / NIBBLES}, scales, zeros, weight, out};
    long tiles = ceil_div(rows, TILE);
    parallel_for(tiles, pack_int4_tile, &packing);
}
