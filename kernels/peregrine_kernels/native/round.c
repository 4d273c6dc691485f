/* Rounding: weights of float32 or bfloat16, row by row, to integers. The results are those of `int8.py` and `int4.py` to the
 * bit: each operation is the same, in the same order. */
#include "native.h"

#include <math.h>

struct rounding {
    const void *x;
    int is_wide; /* float32; else bfloat16 */
    long count;  /* rows or groups */
    long size;   /* elements of a row or group */
};

INLINE vec values(const struct rounding *r, long at, long count) {
    return r->is_wide ? load_first((const float *)r->x + at, count) : load_bf16((const bf16 *)r->x + at, count);
}

struct int8_rounding {
    struct rounding from;
    float largest;
    int8_t *out;
    float *scales;
};

static void round_row(void *args, long row) {
    const struct int8_rounding *a = args;
    long size = a->from.size, start = row * size;
    vec most = splat(1e-20f);
    for (long n = 0; n < size; n += LANES) most = largest(most, absolute(values(&a->from, start + n, size - n)));
    float scale = a->scales[row] = largest_of(most) / a->largest;
    for (long n = 0; n < size; n += LANES) {
        vec scaled = divide(values(&a->from, start + n, size - n), splat(scale));
        store_bytes((uint8_t *)a->out + start + n, to_integers(scaled), size - n);
    }
}

/* x [rows, columns], float32 if is_wide, else bfloat16 -> out and scales [rows] as `quantize_rows` has them. */
EXPORT void peregrine_round_int8(const void *x, int is_wide, long rows, long columns, float largest, int8_t *out,
                                 float *scales) {
    struct int8_rounding args = {{x, is_wide, rows, columns}, largest, out, scales};
    for_rows(rows, columns, round_row, &args);
}

enum { MAX_GROUP = 64, PARTS = 8 /* of a sum */, NIBBLES = 8 /* of a word */ };

struct int4_rounding {
    struct rounding from;
    const float *divisors;
    long num_divisors;
    int32_t *out;
    bf16 *scales;
};

static const float LOWEST = -8, HIGHEST = 7, SMALLEST = 1e-30f;

/* Elements of LANES groups, one group a lane: x[k] holds element k of each. `size` is a constant below: loops are unrolled. */
INLINE void load_groups(vec *x, const struct rounding *r, long group, const int size) {
    for (int k = 0; k < size; k += LANES) {
        ivec block[LANES];
        for (int i = 0; i < LANES; i++) {
            long at = (group + i) * size + k;
            block[i] = as_integers(group + i < r->count ? values(r, at, size - k) : zero());
        }
        transpose(block);
        for (int i = 0; i < LANES && k + i < size; i++) x[k + i] = as_floats(block[i]);
    }
}

INLINE vec code(vec x, vec reciprocal) { return least(largest(nearest(mul(x, reciprocal)), splat(LOWEST)), splat(HIGHEST)); }

/* The sum of terms, which are overwritten: the second half is added to the first until one is left. */
INLINE vec sum_halves(vec *terms, const int count) {
#pragma GCC unroll 4
    for (int half = count / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) terms[i] = add(terms[i], terms[i + half]);
    return terms[0];
}

enum term { SQUARED_ERROR, SQUARED_CODE, PRODUCT };

INLINE vec term_of(const enum term term, vec x, vec scale, vec reciprocal) {
    vec integer = code(x, reciprocal), error = sub(mul(integer, scale), x);
    if (term == SQUARED_ERROR) return mul(error, error);
    return mul(integer, term == PRODUCT ? x : integer);
}

/* The same sum over the elements of each group; terms that are PARTS apart are added in registers. */
INLINE vec sum_of_terms(const enum term term, const vec *x, vec scale, const int size) {
    vec parts[PARTS], reciprocal = divide(splat(1), scale);
    for (int part = 0; part < PARTS; part++) {
        vec terms[MAX_GROUP / PARTS];
#pragma GCC unroll 8
        for (int i = 0; i < size / PARTS; i++) terms[i] = term_of(term, x[part + i * PARTS], scale, reciprocal);
        parts[part] = sum_halves(terms, size / PARTS);
    }
    return sum_halves(parts, PARTS);
}

/* The first element with the largest magnitude; 1 where that is too small. */
INLINE vec extreme_of(const vec *x, const int size) {
    vec most = zero(), extreme = zero();
    for (int k = 0; k < size; k++) most = largest(most, absolute(x[k]));
    for (int k = size - 1; k >= 0; k--) extreme = where_less(absolute(x[k]), most, extreme, x[k]);
    return where_less(most, splat(SMALLEST), splat(1), extreme);
}

/* The scale that fits the codes of `scale` best by least squares; `scale` where there is none. */
INLINE vec fitted(const vec *x, vec scale, const int size) {
    vec norm = sum_of_terms(SQUARED_CODE, x, scale, size);
    vec best = rounded(divide(sum_of_terms(PRODUCT, x, scale, size), norm));
    return where_less(zero(), norm, where_less(absolute(best), splat(SMALLEST), scale, best), scale);
}

INLINE vec best_scale(const struct int4_rounding *a, const vec *x, const int size) {
    vec extreme = extreme_of(x, size), best = extreme, smallest = splat(INFINITY);
    for (long i = 0; i < a->num_divisors; i++) {
        vec scale = rounded(divide(extreme, splat(a->divisors[i]))), error = sum_of_terms(SQUARED_ERROR, x, scale, size);
        best = where_less(error, smallest, scale, best), smallest = least(error, smallest);
    }
    vec fit = fitted(x, best, size);
    return where_less(sum_of_terms(SQUARED_ERROR, x, fit, size), smallest, fit, best);
}

/* Codes of LANES groups, from 0 on, 8 in a word. */
INLINE void store_codes(const struct int4_rounding *a, const vec *x, vec scale, long group, const int size) {
    vec reciprocal = divide(splat(1), scale);
    const int words = size / NIBBLES;
    for (int word = 0; word < words; word++) {
        ivec packed = izero();
        for (int i = NIBBLES - 1; i >= 0; i--) {
            vec from_zero = sub(code(x[word * NIBBLES + i], reciprocal), splat(LOWEST));
            packed = iadd(shift_left(packed, 4), to_integers(from_zero));
        }
        int32_t lanes[LANES];
        istore(lanes, packed);
        for (long i = 0; i < LANES && group + i < a->from.count; i++) a->out[(group + i) * words + word] = lanes[i];
    }
}

INLINE void round_groups(const struct int4_rounding *a, long group, const int size) {
    vec x[MAX_GROUP];
    load_groups(x, &a->from, group, size);
    vec scale = best_scale(a, x, size);
    store_codes(a, x, scale, group, size);
    store_bf16(a->scales + group, scale, a->from.count - group);
}

static void round_item(void *args, long item) {
    const struct int4_rounding *a = args;
    long group = item * LANES;
    switch (a->from.size) {
        case 64: round_groups(a, group, 64); break;
        case 32: round_groups(a, group, 32); break;
        case 16: round_groups(a, group, 16); break;
        default: round_groups(a, group, 8);
    }
}

/* x [count, size], float32 if is_wide, else bfloat16, size 8, 16, 32 or 64 -> out [count, size / 8] and scales
 * [count] as `quantize_int4` has them. */
EXPORT void peregrine_round_int4(const void *x, int is_wide, long count, long size, const float *divisors, long num_divisors,
                                 int32_t *out, bf16 *scales) {
    struct int4_rounding args = {{x, is_wide, count, size}, divisors, num_divisors, out, scales};
    parallel_for(ceil_div(count, LANES), round_item, &args);
}
