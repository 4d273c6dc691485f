/* Vectors of 16 lanes on AVX512-BF16 and AVX512-VNNI (Zen 4, Cooper Lake and later): one register each. With AMX (Sapphire
 * Rapids and later) `multiply` uses tiles instead. */
#pragma once

typedef __m512 vec;
typedef __m512i ivec;
typedef int32_t unit; /* of an input, as in memory */

enum {
    MAX_WEIGHT = 127, /* largest integer of a weight */
    IN_PLACE = 1,     /* whether bfloat16 in memory are units of an input */
    VECTORS = 2,      /* of columns of a packed tile: each input is loaded once for both; loads limit large batches */
#ifdef __AMX_TILE__
    MAX_ROWS = 32,       /* of `multiply`: two tiles */
    UNITS_OF_BLOCK = 16, /* of an input's rows: a tile's */
#else
    MAX_ROWS = 14, /* of `multiply`: their 28 accumulators, 2 weights and 1 input fit into the 32 registers */
    UNITS_OF_BLOCK = 1,
#endif
    MAX_PAIR_ROWS = MAX_ROWS, /* with two vectors of columns */
    PACKED_ROWS = LANES,      /* transposed at once: what a register holds of one unit */
    ODD_LATENCY_ROWS = 0,     /* none: one instruction multiplies a pair, so chains are half as long as AVX2's */
};

INLINE __mmask16 lane_mask(long count) { return count >= LANES ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1; }

INLINE vec zero(void) { return _mm512_setzero_ps(); }
INLINE vec splat(float x) { return _mm512_set1_ps(x); }
INLINE vec load(const float *x) { return _mm512_loadu_ps(x); }
INLINE vec load_first(const float *x, long count) { return _mm512_maskz_loadu_ps(lane_mask(count), x); }
INLINE vec keep_first(vec x, long count) { return _mm512_maskz_mov_ps(lane_mask(count), x); }
INLINE void store_first(float *out, vec x, long count) { _mm512_mask_storeu_ps(out, lane_mask(count), x); }
INLINE void store(float *out, vec x) { _mm512_storeu_ps(out, x); }
INLINE vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec divide(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec fmadd(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec fmsub(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }
INLINE vec fnmadd(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vec largest(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec least(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec absolute(vec x) { return _mm512_abs_ps(x); }
INLINE vec nearest(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec floor_of(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE vec estimate_reciprocal(vec x) { return _mm512_rcp14_ps(x); }
INLINE float sum_of(vec x) { return _mm512_reduce_add_ps(x); }
INLINE float largest_of(vec x) { return _mm512_reduce_max_ps(x); }

/* x * 2**whole, for whole >= -160 */
INLINE vec scale_by_power(vec x, vec whole) { return _mm512_scalef_ps(x, whole); }

/* In each lane: is sign >= 0 ? a : b */
INLINE vec by_sign(vec sign, vec a, vec b) {
    return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(sign, _mm512_setzero_ps(), _CMP_GE_OQ), a);
}

INLINE ivec izero(void) { return _mm512_setzero_si512(); }
INLINE ivec isplat(int32_t x) { return _mm512_set1_epi32(x); }
INLINE ivec iload(const int32_t *x) { return _mm512_loadu_si512(x); }
INLINE ivec iload_first(const void *x, long count) { return _mm512_maskz_loadu_epi32(lane_mask(count), x); }
INLINE void istore(int32_t *out, ivec x) { _mm512_storeu_si512(out, x); }
INLINE void istore_first(int32_t *out, ivec x, long count) { _mm512_mask_storeu_epi32(out, lane_mask(count), x); }
INLINE ivec iadd(ivec a, ivec b) { return _mm512_add_epi32(a, b); }
INLINE ivec to_integers(vec x) { return _mm512_cvtps_epi32(x); }
INLINE vec of_integers(ivec x) { return _mm512_cvtepi32_ps(x); }
INLINE vec as_floats(ivec x) { return _mm512_castsi512_ps(x); }
INLINE ivec as_integers(vec x) { return _mm512_castps_si512(x); }
INLINE ivec shift_left(ivec x, int bits) { return _mm512_slli_epi32(x, bits); }

/* In each lane: a < b ? x : y */
INLINE vec where_less(vec a, vec b, vec x, vec y) { return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), x); }

/* In each lane: a <= b ? x : y */
INLINE vec where_at_most(ivec a, ivec b, vec x, vec y) { return _mm512_mask_mov_ps(y, _mm512_cmple_epi32_mask(a, b), x); }

/* Narrowed in a register first: masked stores that narrow are microcoded. */
INLINE void store_bytes(uint8_t *out, ivec x, long count) {
    _mm_mask_storeu_epi8(out, lane_mask(count), _mm512_cvtepi32_epi8(x));
}

INLINE vec widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE __m256i narrow(vec x) { return (__m256i)_mm512_cvtneps_pbh(x); }
INLINE vec rounded(vec x) { return widen(narrow(x)); }
INLINE vec load_bf16(const bf16 *x, long count) { return widen(_mm256_maskz_loadu_epi16(lane_mask(count), x)); }
INLINE void store_bf16(bf16 *out, vec x, long count) { _mm256_mask_storeu_epi16(out, lane_mask(count), narrow(x)); }

/* 16 bytes, sign-extended to words; 16 pairs of bytes as words; zeros from `count` on. */
INLINE __m256i load_bytes(const char *x, long count) { return _mm256_cvtepi8_epi16(_mm_maskz_loadu_epi8(lane_mask(count), x)); }
INLINE __m256i load_byte_pairs(const char *x, long count) { return _mm256_maskz_loadu_epi16(lane_mask(count), x); }

/* Words, and float16, as float32. */
INLINE vec of_words(__m256i x) { return of_integers(_mm512_cvtepi16_epi32(x)); }
INLINE vec of_halves(__m256i x) { return _mm512_cvtph_ps(x); }

/* `pairs_of` values that bfloat16 represents exactly. */
INLINE ivec exact_pairs(vec even, vec odd) {
    ivec low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
    return _mm512_mask_mov_epi16(low, 0xAAAAAAAA, _mm512_castps_si512(odd));
}

/* Two vectors as bfloat16, interleaved: lane i holds even[i] and odd[i]. */
INLINE ivec pairs_of(vec even, vec odd) {
    ivec high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(odd)), 16);
    return _mm512_or_si512(high, _mm512_cvtepu16_epi32(narrow(even)));
}

/* `count` <= 32 columns of two rows of bfloat16, interleaved: lane i holds even[i] and odd[i]. `odd` may be null: zeros. */
INLINE void store_interleaved(int32_t *out, const bf16 *even, const bf16 *odd, long count) {
    __mmask32 is_column = count >= 32 ? 0xFFFFFFFF : (1u << count) - 1;
    ivec first_row = _mm512_maskz_loadu_epi16(is_column, even), second_row = izero();
    if (odd) second_row = _mm512_maskz_loadu_epi16(is_column, odd);
    /* `low` holds the first 4 of every 8 columns, `high` the last 4. */
    ivec low = _mm512_unpacklo_epi16(first_row, second_row), high = _mm512_unpackhi_epi16(first_row, second_row);
    istore(out, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high));
    istore(out + LANES, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high));
}

INLINE void store_units(unit *out, ivec x, long count) { istore_first(out, x, count); }

INLINE void store_pairs(unit *out, vec even, vec odd) { istore(out, pairs_of(even, odd)); }

/* Transposes 16 vectors of 16 lanes: pairs of rows, groups of four, of eight, the whole. */
INLINE void transpose(ivec x[LANES]) {
    ivec y[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int low = i % 4 + i / 4 * 8;
        y[low] = _mm512_shuffle_i32x4(x[low], x[low + 4], 0x88);
        y[low + 4] = _mm512_shuffle_i32x4(x[low], x[low + 4], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    }
}

/* Packs up to LANES units of up to PACKED_ROWS rows, row stride `ld`, as [units][step]. */
INLINE void pack_units(unit *out, long step, const int32_t *x, long ld, long rows, long units, enum weight_kind kind) {
    ivec of[LANES];
    (void)kind;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) of[i] = iload_first(x + (i < rows ? i : 0) * ld, units);
    transpose(of);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (i < units) store_units(out + i * step, of[i], rows);
}

INLINE ivec dot(ivec sum, ivec w, ivec x, const enum weight_kind kind) {
    if (kind == WEIGHT_INT8) return _mm512_dpbusd_epi32(sum, x, w);
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)w, (__m512bh)x));
}

/* sums[m][v] += unit of row m of x . unit of w: see `struct product`. */
INLINE void add_unit(ivec sums[MAX_ROWS][2], const int32_t *w, const unit *x, long row, const int rows, const int vectors,
                     const enum weight_kind kind) {
    ivec columns[2];
    for (int v = 0; v < vectors; v++) columns[v] = iload(w + v * LANES);
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) {
        ivec one = isplat(x[m * row]);
        /* Keeps the broadcast in a register: as a memory operand of both products it would be loaded twice, and loads are the
         * limit. */
        __asm__("" : "+v"(one));
        for (int v = 0; v < vectors; v++) sums[m][v] = dot(sums[m][v], columns[v], one, kind);
    }
}

/* The lower, or the higher, four bits of each byte. */
INLINE ivec low_nibbles(ivec x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
INLINE ivec high_nibbles(ivec x) { return low_nibbles(_mm512_srli_epi32(x, 4)); }

/* sums[m][v] += unit of row m of x, signed, times that of a vector v of w, unsigned. Inline assembly, because gcc 12 would
 * store each sum in memory as well at every product. */
INLINE void add_unsigned(ivec sums[][2], ivec first, ivec second, const unit *x, long row, const int rows) {
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) {
        ivec one = isplat(x[m * row]);
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[m][0]) : "v"(first), "v"(one));
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[m][1]) : "v"(second), "v"(one));
    }
}

/* The same for 8 units of 4-bit integers as int4.h has them. */
INLINE void add_span(ivec sums[][2], const int32_t *w, const unit *x, long row, long column, const int rows) {
    for (int pair = 0; pair < 4; pair++, w += 2 * LANES, x += 2 * column) {
        ivec first = iload(w), second = iload(w + LANES);
        add_unsigned(sums, low_nibbles(first), low_nibbles(second), x, row, rows);
        add_unsigned(sums, high_nibbles(first), high_nibbles(second), x + column, row, rows);
    }
}

/* The same for some units of integers expanded to 8 bits. */
INLINE void add_expanded(ivec sums[][2], const int32_t *w, const unit *x, long column, const int rows, long units) {
    for (long k = 0; k < units; k++, w += 2 * LANES, x += column) add_unsigned(sums, iload(w), iload(w + LANES), x, 1, rows);
}

/* Nothing to do: one instruction adds the even and the odd product. */
INLINE void join_sums(ivec sums[MAX_ROWS][2], int rows, int vectors, enum weight_kind kind) {
    (void)sums, (void)rows, (void)vectors, (void)kind;
}
