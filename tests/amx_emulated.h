/* AMX's tile instructions in AVX512, for the C kernels' tests on a CPU that has no tiles: included before each source.
 *
 * Products and sums as Intel's Software Developer's Manual, volume 2, gives them; tiles are whole, as the kernels' are. What
 * a CPU would refuse, or leave undefined, ends the process. */
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_ROW_BYTES = 64 };

/* Weak: the same tiles in every source. */
_Thread_local __attribute__((weak)) struct {
    int is_configured;
    uint8_t rows[EMULATED_TILES][EMULATED_ROWS][EMULATED_ROW_BYTES];
} emulated;

static inline void emulated_check(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "AMX, emulated: %s\n", what);
    abort();
}

static inline void emulated_configure(const void *configuration) {
    const uint8_t *bytes = configuration;
    emulated_check(bytes[0] == 1, "the palette is not 1");
    for (int i = 0; i < EMULATED_TILES; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof row_bytes);
        emulated_check(row_bytes == EMULATED_ROW_BYTES && bytes[48 + i] == EMULATED_ROWS, "a tile is not whole");
    }
    emulated.is_configured = 1;
    memset(emulated.rows, 0xff, sizeof emulated.rows);
}

static inline void emulated_release(void) { emulated.is_configured = 0; }

static inline uint8_t (*emulated_tile(int tile)) [EMULATED_ROW_BYTES] {
    emulated_check(emulated.is_configured, "a tile is used outside of begin_tiles and end_tiles");
    return emulated.rows[tile];
}

static inline void emulated_zero(int tile) {
    memset(emulated_tile(tile), 0, sizeof emulated.rows[tile]);
}

static inline void emulated_load(int tile, const void *base, long stride) {
    for (int m = 0; m < EMULATED_ROWS; m++)
        memcpy(emulated_tile(tile)[m], (const uint8_t *)base + m * stride, EMULATED_ROW_BYTES);
}

static inline void emulated_store(int tile, void *base, long stride) {
    for (int m = 0; m < EMULATED_ROWS; m++) memcpy((uint8_t *)base + m * stride, emulated_tile(tile)[m], EMULATED_ROW_BYTES);
}

/* sums[m][n] += the units of row m of x times those of column n of w. */
static inline void emulated_multiply(int sums, int x, int w, int is_integer) {
    for (int m = 0; m < EMULATED_ROWS; m++) {
        __m512i sum = _mm512_loadu_si512(emulated_tile(sums)[m]);
        for (int k = 0; k < EMULATED_ROWS; k++) {
            int32_t unit;
            memcpy(&unit, emulated_tile(x)[m] + 4 * k, sizeof unit);
            __m512i one = _mm512_set1_epi32(unit), columns = _mm512_loadu_si512(emulated_tile(w)[k]);
            if (is_integer)
                sum = _mm512_dpbusd_epi32(sum, one, columns);
            else
                sum = (__m512i)_mm512_dpbf16_ps((__m512)sum, (__m512bh)one, (__m512bh)columns);
        }
        _mm512_storeu_si512(emulated_tile(sums)[m], sum);
    }
}

/* The same with both signed: x is taken as x + 128, unsigned, and 128 times w is taken off again. */
static inline void emulated_multiply_signed(int sums, int x, int w) {
    const __m512i offset = _mm512_set1_epi8(-128);
    for (int m = 0; m < EMULATED_ROWS; m++) {
        __m512i sum = _mm512_loadu_si512(emulated_tile(sums)[m]);
        for (int k = 0; k < EMULATED_ROWS; k++) {
            int32_t unit;
            memcpy(&unit, emulated_tile(x)[m] + 4 * k, sizeof unit);
            __m512i one = _mm512_xor_si512(_mm512_set1_epi32(unit), offset), columns = _mm512_loadu_si512(emulated_tile(w)[k]);
            sum = _mm512_dpbusd_epi32(sum, one, columns);
            sum = _mm512_sub_epi32(sum, _mm512_dpbusd_epi32(_mm512_setzero_si512(), offset, columns));
        }
        _mm512_storeu_si512(emulated_tile(sums)[m], sum);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#undef _tile_dpbssd
#define _tile_loadconfig(configuration) emulated_configure(configuration)
#define _tile_release() emulated_release()
#define _tile_zero(tile) emulated_zero(tile)
#define _tile_loadd(tile, base, stride) emulated_load(tile, base, stride)
#define _tile_stored(tile, base, stride) emulated_store(tile, base, stride)
#define _tile_dpbf16ps(sums, x, w) emulated_multiply(sums, x, w, 0)
#define _tile_dpbusd(sums, x, w) emulated_multiply(sums, x, w, 1)
#define _tile_dpbssd(sums, x, w) emulated_multiply_signed(sums, x, w)
