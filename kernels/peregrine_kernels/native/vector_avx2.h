/* Vectors of 16 lanes on AVX2 and FMA (Haswell, Zen and later): two registers each. The two bfloat16 of a 32-bit unit are
 * multiplied as float32: first the even one, then the odd one. */
#pragma once

typedef struct {
    __m256 a, b;
} vec;
typedef struct {
    __m256i a, b;
} ivec;
typedef struct {
    int32_t even, odd;
} unit; /* of an input: two bfloat16 widened to float32; or four integers, in `even` */

enum {
    MAX_WEIGHT = 63,    /* largest integer of a weight: 2 * 63 * 255 fits into the 16 bits that vpmaddubsw saturates at */
    IN_PLACE = 0,       /* whether bfloat16 in memory are units of an input */
    VECTORS = 1,        /* of columns of a packed tile: more would save loads, and FMAs are the limit */
    MAX_ROWS = 6,       /* of `multiply`: their accumulators take 12 of the 16 registers */
    MAX_PAIR_ROWS = 3,  /* with two vectors of columns */
    MAX_SPLIT_ROWS = 3, /* accumulate even and odd products separately, which shortens the chains of dependent FMAs */
    /* At 4 rows the 8 accumulators form dependent FMA chains (latency-bound), and splitting even/odd products needs 16
     * registers. Passes avoid this size. */
    ODD_LATENCY_ROWS = 4,
    PACKED_ROWS = 4, /* transposed at once: what a register holds of one unit */
    UNITS_OF_BLOCK = 1,
};

#define BOTH(type, f, x) \
    (type) { f(x.a), f(x.b) }
#define BOTH2(type, f, x, y) \
    (type) { f(x.a, y.a), f(x.b, y.b) }
#define BOTH3(type, f, x, y, z) \
    (type) { f(x.a, y.a, z.a), f(x.b, y.b, z.b) }

INLINE vec zero(void) { return (vec){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE vec splat(float x) { return (vec){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vec load(const float *x) { return (vec){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
INLINE void store(float *out, vec x) { _mm256_storeu_ps(out, x.a), _mm256_storeu_ps(out + 8, x.b); }
INLINE vec add(vec x, vec y) { return BOTH2(vec, _mm256_add_ps, x, y); }
INLINE vec sub(vec x, vec y) { return BOTH2(vec, _mm256_sub_ps, x, y); }
INLINE vec divide(vec x, vec y) { return BOTH2(vec, _mm256_div_ps, x, y); }
INLINE vec mul(vec x, vec y) { return BOTH2(vec, _mm256_mul_ps, x, y); }
INLINE vec fmadd(vec x, vec y, vec z) { return BOTH3(vec, _mm256_fmadd_ps, x, y, z); }
INLINE vec fmsub(vec x, vec y, vec z) { return BOTH3(vec, _mm256_fmsub_ps, x, y, z); }
INLINE vec fnmadd(vec x, vec y, vec z) { return BOTH3(vec, _mm256_fnmadd_ps, x, y, z); }
INLINE vec largest(vec x, vec y) { return BOTH2(vec, _mm256_max_ps, x, y); }
INLINE vec least(vec x, vec y) { return BOTH2(vec, _mm256_min_ps, x, y); }
INLINE vec estimate_reciprocal(vec x) { return BOTH(vec, _mm256_rcp_ps, x); }

INLINE ivec izero(void) { return (ivec){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE ivec isplat(int32_t x) { return (ivec){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE __m256i load_half(const int32_t *x) { return _mm256_loadu_si256((const __m256i *)x); }
INLINE ivec iload(const int32_t *x) { return (ivec){load_half(x), load_half(x + 8)}; }
INLINE void istore(int32_t *out, ivec x) {
    _mm256_storeu_si256((__m256i *)out, x.a), _mm256_storeu_si256((__m256i *)(out + 8), x.b);
}
INLINE ivec iadd(ivec x, ivec y) { return BOTH2(ivec, _mm256_add_epi32, x, y); }
INLINE ivec to_integers(vec x) { return BOTH(ivec, _mm256_cvtps_epi32, x); }
INLINE vec of_integers(ivec x) { return BOTH(vec, _mm256_cvtepi32_ps, x); }
INLINE vec as_floats(ivec x) { return BOTH(vec, _mm256_castsi256_ps, x); }
INLINE ivec as_integers(vec x) { return BOTH(ivec, _mm256_castps_si256, x); }
INLINE ivec shift_left(ivec x, int bits) { return (ivec){_mm256_slli_epi32(x.a, bits), _mm256_slli_epi32(x.b, bits)}; }

INLINE __m256 absolute_half(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
INLINE vec absolute(vec x) { return BOTH(vec, absolute_half, x); }

INLINE __m256 nearest_half(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec nearest(vec x) { return BOTH(vec, nearest_half, x); }

INLINE vec floor_of(vec x) { return BOTH(vec, _mm256_floor_ps, x); }

INLINE float sum_of(vec x) {
    float lanes[LANES], sum = 0;
    store(lanes, x);
    for (int i = 0; i < LANES; i++) sum += lanes[i];
    return sum;
}

INLINE float largest_of(vec x) {
    float lanes[LANES], most;
    store(lanes, x);
    most = lanes[0];
    for (int i = 1; i < LANES; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* x * 2**whole; 0 for whole <= -127, where the power is denormal */
INLINE __m256 scale_half(__m256 x, __m256 whole) {
    __m256i exponent = _mm256_cvtps_epi32(_mm256_max_ps(whole, _mm256_set1_ps(-127.0f)));
    exponent = _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(exponent));
}
INLINE vec scale_by_power(vec x, vec whole) { return BOTH2(vec, scale_half, x, whole); }

/* In each lane: is sign >= 0 ? x : y */
INLINE vec by_sign(vec sign, vec x, vec y) {
    return (vec){_mm256_blendv_ps(x.a, y.a, sign.a), _mm256_blendv_ps(x.b, y.b, sign.b)};
}

/* In each lane: x < y ? p : q */
INLINE __m256 where_less_half(__m256 x, __m256 y, __m256 p, __m256 q) {
    return _mm256_blendv_ps(q, p, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
}
INLINE vec where_less(vec x, vec y, vec p, vec q) {
    return (vec){where_less_half(x.a, y.a, p.a, q.a), where_less_half(x.b, y.b, p.b, q.b)};
}

/* In each lane: x <= y ? p : q */
INLINE __m256 where_half(__m256i x, __m256i y, __m256 p, __m256 q) {
    return _mm256_blendv_ps(p, q, _mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y)));
}
INLINE vec where_at_most(ivec x, ivec y, vec p, vec q) {
    return (vec){where_half(x.a, y.a, p.a, q.a), where_half(x.b, y.b, p.b, q.b)};
}

/* Partial vectors (the end of a row) go through memory. */
INLINE ivec iload_first(const void *x, long count) {
    int32_t lanes[LANES] = {0};
    if (count >= LANES) return iload(x);
    if (count > 0) __builtin_memcpy(lanes, x, count * sizeof *lanes);
    return iload(lanes);
}
INLINE vec load_first(const float *x, long count) { return as_floats(iload_first(x, count)); }
INLINE vec keep_first(vec x, long count) {
    float lanes[LANES];
    if (count >= LANES) return x;
    store(lanes, x);
    return load_first(lanes, count);
}

INLINE void store_first(float *out, vec x, long count) {
    float lanes[LANES], *to = count < LANES ? lanes : out;
    store(to, x);
    if (count < LANES && count > 0) __builtin_memcpy(out, lanes, count * sizeof *out);
}

/* The lowest byte of each lane. */
INLINE __m128i lowest_bytes(ivec x) {
    const __m256i first = _mm256_set1_epi32(0x0C080400), none = _mm256_set1_epi32(-1);
    __m256i a = _mm256_shuffle_epi8(x.a, _mm256_blend_epi32(none, first, 0x11));
    __m256i b = _mm256_shuffle_epi8(x.b, _mm256_blend_epi32(none, first, 0x22));
    return _mm256_castsi256_si128(
        _mm256_permutevar8x32_epi32(_mm256_or_si256(a, b), _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0)));
}

INLINE void store_bytes(uint8_t *out, ivec x, long count) {
    if (count >= LANES) {
        _mm_storeu_si128((__m128i *)out, lowest_bytes(x));
        return;
    }
    int32_t lanes[LANES];
    istore(lanes, x);
    for (long i = 0; i < LANES && i < count; i++) out[i] = lanes[i];
}

/* x rounded to the nearest bfloat16 (ties to even), in the upper 16 bits of each lane; the lower 16 are not cleared. A NaN with
 * all mantissa bits set would overflow to a number; arithmetic yields only NaNs with the quiet bit alone. */
INLINE __m256i round_half(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
}
INLINE __m256i upper_half(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi32(0xFFFF0000)); }
INLINE __m256 rounded_half(__m256 x) { return _mm256_castsi256_ps(upper_half(round_half(x))); }
INLINE vec rounded(vec x) { return BOTH(vec, rounded_half, x); }

/* Two vectors as bfloat16, interleaved: lane i holds even[i] and odd[i]. */
INLINE __m256i pairs_half(__m256 even, __m256 odd) {
    return _mm256_blend_epi16(_mm256_srli_epi32(round_half(even), 16), round_half(odd), 0xAA);
}
INLINE ivec pairs_of(vec even, vec odd) { return BOTH2(ivec, pairs_half, even, odd); }

/* 16 bytes, sign-extended to words; 16 pairs of bytes as words; zeros from `count` on. */
INLINE __m256i load_bytes(const char *x, long count) {
    char lanes[LANES] = {0};
    if (count < LANES) {
        if (count > 0) __builtin_memcpy(lanes, x, count);
        x = lanes;
    }
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)x));
}
INLINE __m256i load_byte_pairs(const char *x, long count) {
    char lanes[2 * LANES] = {0};
    if (count < LANES) {
        if (count > 0) __builtin_memcpy(lanes, x, 2 * count);
        x = lanes;
    }
    return _mm256_loadu_si256((const __m256i *)x);
}

/* Words, and float16, as float32. */
INLINE vec of_words(__m256i x) {
    __m128i low = _mm256_castsi256_si128(x), high = _mm256_extracti128_si256(x, 1);
    return of_integers((ivec){_mm256_cvtepi16_epi32(low), _mm256_cvtepi16_epi32(high)});
}
INLINE vec of_halves(__m256i x) {
    return (vec){_mm256_cvtph_ps(_mm256_castsi256_si128(x)), _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1))};
}

/* `pairs_of` values that bfloat16 represents exactly. */
INLINE __m256i exact_half(__m256i even, __m256i odd) { return _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xAA); }
INLINE ivec exact_pairs(vec even, vec odd) { return BOTH2(ivec, exact_half, as_integers(even), as_integers(odd)); }

INLINE __m256 widen_half(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
INLINE vec load_bf16(const bf16 *x, long count) {
    bf16 lanes[LANES] = {0};
    if (count < LANES) {
        if (count > 0) __builtin_memcpy(lanes, x, count * sizeof *lanes);
        x = lanes;
    }
    return (vec){widen_half(_mm_loadu_si128((const __m128i *)x)), widen_half(_mm_loadu_si128((const __m128i *)(x + 8)))};
}
/* `count` <= 32 columns of two rows of bfloat16, interleaved: lane i holds even[i] and odd[i]. `odd` may be null: zeros. */
INLINE void store_interleaved(int32_t *out, const bf16 *even, const bf16 *odd, long count) {
    for (long n = 0; n < 2 * LANES && n < count; n += LANES)
        istore(out + n, pairs_of(load_bf16(even + n, count - n), odd ? load_bf16(odd + n, count - n) : zero()));
}
INLINE void store_bf16(bf16 *out, vec x, long count) {
    __m256i a = _mm256_srli_epi32(round_half(x.a), 16), b = _mm256_srli_epi32(round_half(x.b), 16);
    __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
    if (count >= LANES) {
        _mm256_storeu_si256((__m256i *)out, both);
    } else if (count > 0) {
        bf16 lanes[LANES];
        _mm256_storeu_si256((__m256i *)lanes, both);
        __builtin_memcpy(out, lanes, count * sizeof *lanes);
    }
}

/* Transposes 8 registers of 8 lanes: pairs of rows, groups of four, the whole. */
INLINE void transpose_block(__m256i x[8]) {
    __m256i y[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm256_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm256_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm256_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        y[i] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x20);
        y[i + 4] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) x[i] = y[i];
}

/* Transposes 16 vectors of 16 lanes as four blocks, swapping the two off the diagonal. */
INLINE void transpose(ivec x[LANES]) {
    __m256i blocks[4][8];
    for (int i = 0; i < 8; i++)
        blocks[0][i] = x[i].a, blocks[1][i] = x[i].b, blocks[2][i] = x[8 + i].a, blocks[3][i] = x[8 + i].b;
    for (int block = 0; block < 4; block++) transpose_block(blocks[block]);
    for (int i = 0; i < 8; i++) {
        x[i] = (ivec){blocks[0][i], blocks[2][i]};
        x[8 + i] = (ivec){blocks[1][i], blocks[3][i]};
    }
}

/* The even or the odd element of each pair of bfloat16, as float32. */
INLINE __m256i element_of(__m256i pairs, const int is_odd) { return is_odd ? upper_half(pairs) : _mm256_slli_epi32(pairs, 16); }

INLINE void interleave(unit *out, __m256i even, __m256i odd) {
    __m256i low = _mm256_unpacklo_epi32(even, odd), high = _mm256_unpackhi_epi32(even, odd);
    _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(out + 4), _mm256_permute2x128_si256(low, high, 0x31));
}

INLINE void store_units(unit *out, ivec x, long count) {
    unit lanes[LANES], *to = count < LANES ? lanes : out;
    interleave(to, element_of(x.a, 0), element_of(x.a, 1));
    interleave(to + 8, element_of(x.b, 0), element_of(x.b, 1));
    if (count < LANES && count > 0) __builtin_memcpy(out, lanes, count * sizeof *out);
}

/* Transposes 8 units of each of 4 rows: y[k] is unit k of every row. */
INLINE void transpose_units(__m256i y[8], const __m256i x[PACKED_ROWS], enum weight_kind kind) {
    for (int high = 0; high < 2; high++) {
        __m256i rows[PACKED_ROWS];
        for (int i = 0; i < PACKED_ROWS; i++) {
            __m256i even = kind == WEIGHT_BF16 ? element_of(x[i], 0) : x[i], odd = element_of(x[i], 1);
            rows[i] = high ? _mm256_unpackhi_epi32(even, odd) : _mm256_unpacklo_epi32(even, odd);
        }
        for (int odd = 0; odd < 2; odd++) {
            __m256i first = odd ? _mm256_unpackhi_epi64(rows[0], rows[1]) : _mm256_unpacklo_epi64(rows[0], rows[1]);
            __m256i last = odd ? _mm256_unpackhi_epi64(rows[2], rows[3]) : _mm256_unpacklo_epi64(rows[2], rows[3]);
            y[2 * high + odd] = _mm256_permute2x128_si256(first, last, 0x20);
            y[2 * high + odd + 4] = _mm256_permute2x128_si256(first, last, 0x31);
        }
    }
}

INLINE void store_rows(unit *out, __m256i x, long rows) {
    if (rows >= PACKED_ROWS) {
        _mm256_storeu_si256((__m256i *)out, x);
        return;
    }
    __m128i low = _mm256_castsi256_si128(x), high = _mm256_extracti128_si256(x, 1);
    if (rows >= 2) _mm_storeu_si128((__m128i *)out, low);
    if (rows % 2) _mm_storel_epi64((__m128i *)(out + rows - 1), rows > 1 ? high : low);
}

/* Packs up to LANES units of up to PACKED_ROWS rows, row stride `ld`, as [units][step]. */
INLINE void pack_units(unit *out, long step, const int32_t *x, long ld, long rows, long units, enum weight_kind kind) {
    for (long k = 0; k < units && k < LANES; k += 8) {
        __m256i of_row[PACKED_ROWS], of_unit[8];
        for (int i = 0; i < PACKED_ROWS; i++) {
            const int32_t *row = x + (i < rows ? i : 0) * ld + k;
            of_row[i] = units - k < 8 ? iload_first(row, units - k).a : load_half(row);
        }
        transpose_units(of_unit, of_row, kind);
        for (int i = 0; i < 8; i++)
            if (i < units - k) store_rows(out + (k + i) * step, of_unit[i], rows);
    }
}

INLINE void store_pairs(unit *out, vec even, vec odd) {
    ivec x = as_integers(even), y = as_integers(odd);
    interleave(out, x.a, y.a), interleave(out + 8, x.b, y.b);
}

/* Inline assembly, because gcc would keep inputs and weights in registers and spill the accumulators. 12 accumulators, two
 * weights, an input and a mask take all 16 registers. */
INLINE void add_floats(ivec *sum, ivec w, const int32_t *x) {
    __m256i one;
    __asm__("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
            : "+x"(sum->a), "+x"(sum->b), "=&x"(one)
            : "m"(*x), "x"(w.a), "x"(w.b));
}

INLINE void add_integers(ivec *sum, const int32_t *w, const int32_t *x) {
    const __m256i *in = (const __m256i *)w, ones = _mm256_set1_epi16(1);
    __m256i a, b;
    __asm__("vpbroadcastd %4, %3\n\tvpmaddubsw %5, %3, %2\n\tvpmaddubsw %6, %3, %3\n\t"
            "vpmaddwd %7, %2, %2\n\tvpmaddwd %7, %3, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
            : "+x"(sum->a), "+x"(sum->b), "=&x"(a), "=&x"(b)
            : "m"(*x), "m"(in[0]), "m"(in[1]), "x"(ones));
}

INLINE __m256i load_even(const int32_t *w) {
    __m256i x;
    __asm__("vmovdqu %1, %0\n\tvpslld $16, %0, %0" : "=x"(x) : "m"(*(const __m256i *)w));
    return x;
}

INLINE ivec load_weights(const int32_t *w, const int is_odd) {
    if (is_odd) return (ivec){upper_half(load_half(w)), upper_half(load_half(w + 8))};
    return (ivec){load_even(w), load_even(w + 8)};
}

/* The lower, or the higher, four bits of each byte. */
INLINE __m256i low_half(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
INLINE __m256i high_half(__m256i x) { return low_half(_mm256_srli_epi32(x, 4)); }
INLINE ivec low_nibbles(ivec x) { return BOTH(ivec, low_half, x); }
INLINE ivec high_nibbles(ivec x) { return BOTH(ivec, high_half, x); }

/* narrow (+)= a vector of columns, unsigned, times four inputs, signed, as pairs in 16 bits. Inline assembly, because gcc spills:
 * 12 accumulators, the columns and two temporaries take all 16 registers. */
INLINE void begin_narrow(ivec *narrow, ivec columns, const int32_t *x) {
    __asm__("vpbroadcastd %2, %1\n\tvpmaddubsw %1, %3, %0\n\tvpmaddubsw %1, %4, %1"
            : "=&x"(narrow->a), "=&x"(narrow->b)
            : "m"(*x), "x"(columns.a), "x"(columns.b));
}

INLINE void add_narrow(ivec *narrow, ivec columns, const int32_t *x) {
    __m256i a, b;
    __asm__("vpbroadcastd %4, %3\n\tvpmaddubsw %3, %5, %2\n\tvpmaddubsw %3, %6, %3\n\t"
            "vpaddw %2, %0, %0\n\tvpaddw %3, %1, %1"
            : "+x"(narrow->a), "+x"(narrow->b), "=&x"(a), "=&x"(b)
            : "m"(*x), "x"(columns.a), "x"(columns.b));
}

/* sums[m] += 8 units of row m of x, signed, times those of a vector of w, unsigned: 4-bit integers as int4.h has them, or
 * expanded to 8 bits. Pairs add up in 16 bits: 8 of at most 2 * 15 * 127. */
INLINE void add_eight(ivec sums[][1], const int32_t *w, const unit *x, long row, long column, const int rows,
                      const int is_expanded) {
    ivec narrow[MAX_ROWS];
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; pair++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            ivec columns = iload(w + (is_expanded ? 2 * pair + half : pair) * LANES);
            if (!is_expanded) columns = half ? high_nibbles(columns) : low_nibbles(columns);
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++) {
                const int32_t *one = &x[m * row + (2 * pair + half) * column].even;
                if (pair || half)
                    add_narrow(&narrow[m], columns, one);
                else
                    begin_narrow(&narrow[m], columns, one);
            }
        }
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 6
    for (int m = 0; m < rows; m++) {
        ivec wide = {_mm256_madd_epi16(narrow[m].a, ones), _mm256_madd_epi16(narrow[m].b, ones)};
        sums[m][0] = iadd(sums[m][0], wide);
    }
}

INLINE void add_span(ivec sums[][1], const int32_t *w, const unit *x, long row, long column, const int rows) {
    add_eight(sums, w, x, row, column, rows, 0);
}

INLINE void add_expanded(ivec sums[][1], const int32_t *w, const unit *x, long column, const int rows, long units) {
    for (; units; units -= 8, w += 8 * LANES, x += 8 * column) add_eight(sums, w, x, 1, column, rows, 1);
}

/* Whether sums[m][1] accumulates the odd products of one vector instead of a second vector. */
INLINE int splits(const int rows, const int vectors, const enum weight_kind kind) {
    return kind == WEIGHT_BF16 && vectors == 1 && rows <= MAX_SPLIT_ROWS;
}

/* sums[m][v] += unit of row m of x . unit of w: see `struct product`. */
INLINE void add_unit(ivec sums[MAX_ROWS][2], const int32_t *w, const unit *x, long row, const int rows, const int vectors,
                     const enum weight_kind kind) {
    if (kind == WEIGHT_INT8) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++) add_integers(&sums[m][v], w + v * LANES, &x[m * row].even);
        return;
    }
#pragma GCC unroll 2
    for (int is_odd = 0; is_odd < 2; is_odd++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            ivec weights = load_weights(w + v * LANES, is_odd);
            int to = splits(rows, vectors, kind) ? is_odd : v;
#pragma GCC unroll 6
            for (int m = 0; m < rows; m++) add_floats(&sums[m][to], weights, is_odd ? &x[m * row].odd : &x[m * row].even);
        }
}

/* Adds the accumulators of even and odd products where they are separate. */
INLINE void join_sums(ivec sums[MAX_ROWS][2], const int rows, const int vectors, const enum weight_kind kind) {
    if (!splits(rows, vectors, kind)) return;
#pragma GCC unroll 3
    for (int m = 0; m < rows; m++) sums[m][0] = as_integers(add(as_floats(sums[m][0]), as_floats(sums[m][1])));
}
