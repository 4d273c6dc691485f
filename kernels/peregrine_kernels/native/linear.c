/* y = activation(x W^T + bias) + residual in bfloat16, accumulated in float32; or W8A8, accumulated in int32: W is int8 with a
 * scale a column, and each row of x is quantized with a scale of its own.
 *
 * W [N, K] is packed in tiles of one or two vectors of columns of y: [N / TILE][K / 2][TILE][2], or [N / TILE][K / 4][TILE][4]
 * for integers, so that a thread reads it as one stream. Each weight in a register is multiplied with up to 14 rows of x (AVX2:
 * 6, AMX: 32); further rows read its tile from the cache. */
#include "native.h"

enum {
    TILE = VECTORS * LANES, /* columns */
    HAS_TILES = UNITS_OF_BLOCK > 1,
    UNIT_BYTES = TILE * sizeof(int32_t),
    ROWS_AT_ONCE = HAS_TILES ? 256 : 252, /* rows of x that are packed together: 1 MiB at K = 2048, 2 as float32 */
    UNITS_OF_PART = 256, /* of a row that one thread packs at a time: few, since lines come from the core that wrote them */
    UNITS_AT_ONCE = HAS_TILES ? 256 : 512, /* of a tile: 32 KiB fit into the L1 cache; AVX512: 64 KiB, into L2 */
    MAX_INPUT_BYTES = 5 << 18,             /* of x that AMX multiplies with all tiles; fits into the L2 cache */
    SUMS_OF_TILE = TILE * ROWS_AT_ONCE,
    PADDING = HAS_TILES ? LANES : 0,                  /* units: a cache line between rows, against conflict misses */
    MAX_DIRECT_ROWS = IN_PLACE && !HAS_TILES ? 6 : 0, /* of x read in place: more, 4 KiB apart, evict one another */
    MAX_ROWS_PER_THREAD = 32,
    MIN_TILES_PER_THREAD = 64, /* see `packs_per_thread` */
    /* Maximum rows for which the epilogue of several tiles is deferred and run together; running it after each tile
     * interrupts the weight stream. */
    MAX_DEFERRED_ROWS = HAS_TILES ? 0 : 1,
};

/* Whether AVX2 computes faster than memory delivers the weight. Zen 4's hardware prefetcher is then best left nearly alone:
 * prefetching every line 6 KiB ahead makes a decode of 1.15 B parameters 24 % slower in int8 and 3 % in bfloat16 at 55 GB/s
 * of memory bandwidth; 1 % in bfloat16 at 32 GB/s. */
static int is_memory_bound(long rows) { return VECTORS == 1 && rows == 1; }

/* Prefetch distance, in bytes, in the first pass over a weight. Chosen at 30 and at 50 GB/s of memory bandwidth: 6 KiB for
 * every row count costs a tenth of the time at one or two rows, which are bound by memory, and 3 % at 8. AMX is insensitive. */
static long prefetch_distance(long rows) {
    if (HAS_TILES) return 1536;
    if (is_memory_bound(rows)) return 8192;
    return VECTORS == 2 && rows <= 2 ? 2560 : rows <= 6 ? 6144 : 8192;
}

enum activation { NONE, GELU, GELU_TANH, RELU, SILU };

/* One linear of an input; residual and y are [rows, columns], residual may be null. */
struct output {
    const struct weight *w;
    const bf16 *residual;
    bf16 *y;
    float *wide; /* if not null, written instead of y: the same values as float32 */
};

/* Rows of an input in the layout that `multiply` reads, and the linear that they go through. */
struct packed {
    struct output to;
    const bf16 *source; /* [rows, depth] */
    long ld, rows, depth;
    enum weight_kind kind;
    long num_units;
    const int32_t *plain;    /* the source, or its quantized copy */
    long plain_row;          /* row stride of `plain` */
    const unit *x;           /* the operand of `multiply`: `plain`, or packed rows; null: each thread packs its own copy */
    long row, column, step;  /* strides of x, in units; rows a call of `multiply` */
    long begin, end;         /* the units that are multiplied in this part */
    int32_t *sums;           /* of all tiles, if the units are multiplied in parts; or null */
    const float *row_scales; /* [rows]: of each quantized row */
};

/* 1 / x to float32's precision: an estimate (12 bits on AVX2, 14 on AVX512) and a Newton step, in a third of a division's
 * time. */
INLINE vec reciprocal(vec x) {
    vec estimate = estimate_reciprocal(x);
    return mul(estimate, fnmadd(x, estimate, splat(2.0f)));
}

/* x / 2 (1 + erf(x / sqrt(2))), erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
INLINE vec gelu(vec x) {
    const vec one = splat(1.0f);
    vec z = mul(absolute(x), splat(0.70710678f));
    vec t = reciprocal(fmadd(z, splat(0.3275911f), one));
    vec p = splat(1.061405429f);
    p = fmadd(p, t, splat(-1.453152027f));
    p = fmadd(p, t, splat(1.421413741f));
    p = fmadd(p, t, splat(-0.284496736f));
    p = fmadd(p, t, splat(0.254829592f));
    vec square = mul(mul(z, z), splat(-1.44269504f));
    vec tail = mul(mul(p, t), exp2_of(square)); /* 1 - erf(z) */
    vec half = mul(splat(0.5f), x);
    vec scaled = mul(half, tail);
    /* x - x / 2 * tail for x >= 0, x / 2 * tail for x < 0 */
    return by_sign(x, sub(x, scaled), scaled);
}

/* x / (1 + exp(-t)) */
INLINE vec times_sigmoid(vec x, vec t) {
    vec e = exp2_of(mul(absolute(t), splat(-1.44269504f))); /* exp(-|t|) */
    vec of_negative = mul(mul(x, e), reciprocal(add(splat(1.0f), e)));
    return by_sign(t, sub(x, of_negative), of_negative);
}

/* x / 2 (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
INLINE vec gelu_tanh(vec x) {
    vec cubic = fmadd(mul(x, x), splat(0.044715f), splat(1.0f));
    return times_sigmoid(x, mul(mul(x, cubic), splat(2.0f * 0.79788456f)));
}

INLINE vec activate(vec x, enum activation activation) {
    switch (activation) {
        case GELU: return gelu(x);
        case GELU_TANH: return gelu_tanh(x);
        case RELU: return largest(x, zero());
        case SILU: return times_sigmoid(x, x);
        default: return x;
    }
}

/* Prefetches what `finish` reads and writes: it would stall on each line that is in no cache. */
static void prefetch(const struct output *to, long column, long row, int rows) {
    const struct weight *w = to->w;
    for (long m = row; m < row + rows; m++) {
        if (to->y) __builtin_prefetch(to->y + m * w->columns + column, 1);
        if (to->residual) __builtin_prefetch(to->residual + m * w->columns + column);
    }
    if (w->kind == WEIGHT_INT8) __builtin_prefetch(w->scales + column), __builtin_prefetch(w->offsets + column);
    if (w->bias) __builtin_prefetch(w->bias + column);
}

INLINE void store_result(struct output to, long at, vec y, long count) {
    if (to.wide)
        store_first(to.wide + at, rounded(y), count);
    else
        store_bf16(to.y + at, y, count);
}

/* The epilogue of some rows of one vector of columns: scales, bias, activation, residual, store. `kind` and `activation` are
 * the weight's, as compile-time constants, so that nothing is decided per row. */
INLINE void finish_rows(const struct packed *p, const int32_t *sums, long ld, long column, long row, int rows,
                        const enum weight_kind kind, const enum activation activation) {
    const struct output to = p->to;
    const struct weight w = *to.w;
    const float *row_scales = p->row_scales;
    long left = w.columns - column;
    vec scales = zero(), offsets = scales, bias = scales;
    if (w.bias) bias = load_bf16(w.bias + column, left);
    if (kind == WEIGHT_INT8) {
        scales = load_first(w.scales + column, left);
        offsets = load_first(w.offsets + column, left);
    }
    for (long m = row; m < row + rows; m++) {
        ivec sum = iload(sums + (m - row) * ld);
        vec y = as_floats(sum);
        if (kind == WEIGHT_INT8) {
            y = sub(of_integers(sum), offsets);
            y = mul(y, mul(scales, splat(row_scales[m])));
        }
        /* transformers rounds the product to bfloat16 before it adds the bias. */
        if (w.bias) y = add(rounded(y), bias);
        y = activate(y, activation);
        if (to.residual) y = add(y, load_bf16(to.residual + m * w.columns + column, left));
        store_result(to, m * w.columns + column, y, left);
    }
}

#define CASE(activation)                                                          \
    case activation:                                                              \
        if (p->kind == WEIGHT_INT8)                                               \
            finish_rows(p, sums, ld, column, row, rows, WEIGHT_INT8, activation); \
        else                                                                      \
            finish_rows(p, sums, ld, column, row, rows, WEIGHT_BF16, activation); \
        break;

static void finish(const struct packed *p, const int32_t *sums, long ld, long column, long row, int rows) {
    switch ((enum activation)p->to.w->activation) { CASE(NONE) CASE(GELU) CASE(GELU_TANH) CASE(RELU) CASE(SILU) }
}

/* A single pass prefetches its own weights. Of several passes over the same weights, each prefetches 1 / passes of what follows
 * this part of the tile, `next` bytes ahead. */
static void set_prefetch(struct product *p, long rows, long pass, long passes, long next) {
    p->prefetch_distance = passes > 1 ? next : prefetch_distance(rows);
    p->prefetch_stride = is_memory_bound(rows) ? 8 : passes;
    p->prefetch_phase = pass;
}

/* Runs the epilogue of a complete tile, one vector of columns after the other. */
static void finish_tile(const struct packed *p, const int32_t *sums, long tile, long row, int rows) {
    for (long column = tile * TILE, i = 0; i < TILE && column + i < p->to.w->columns; i += LANES)
        finish(p, sums + i, TILE, column + i, row, rows);
}

/* This thread's memory for packed rows. */
static unit *packed_rows(const struct packed *p) {
    return scratch(SCRATCH_INPUT, ceil_div(p->rows, LANES) * LANES * (p->num_units + PADDING) * sizeof(unit));
}

/* Multiplies all rows of x with a tile; with several adjacent tiles if all rows fit into one pass. */
static void multiply_tiles(const struct packed *p, long tile, long tiles, int32_t *sums) {
    const unit *input = p->x ? p->x : packed_rows(p);
    long passes = ceil_div(p->rows, p->step), at_once = passes == 1 ? p->num_units : UNITS_AT_ONCE;
    for (long k = p->begin; k < p->end; k += at_once) {
        long units = p->end - k < at_once ? p->end - k : at_once;
        long next = k + units < p->end ? units : p->num_units - (k - p->begin);
        int is_last = k + units == p->num_units;
        const int32_t *w = p->to.w->packed + (tile * p->num_units + k) * TILE;
        for (long m = 0; m < p->rows; m += p->step) {
            int rows = p->rows - m < p->step ? p->rows - m : p->step;
            const unit *x = p->column == 1 ? input + m * p->row + k : input + m * p->num_units + k * rows;
            struct product product = {
                .kind = p->kind,
                .x = x,
                .row = p->row,
                .column = p->column == 1 ? 1 : rows,
                .w = w,
                .ldw = TILE,
                .num_units = units,
                .c = sums + m * TILE,
                .ldc = TILE,
                .accumulates = k > 0,
                .more_tiles = tiles - 1,
            };
            set_prefetch(&product, p->rows, m / p->step, passes, next * UNIT_BYTES);
            if (is_last && tiles == 1) prefetch(&p->to, tile * TILE, m, rows);
            multiply(&product, rows, VECTORS);
            for (long i = 0; is_last && i < tiles; i++) finish_tile(p, sums + (i * rows + m) * TILE, tile + i, m, rows);
        }
    }
}

static void multiply_range(void *args, long tile, long end) {
    const struct packed *p = args;
    int32_t *own = p->sums ? 0 : scratch(SCRATCH_SUMS, SUMS_OF_TILE * sizeof(int32_t));
    long most = p->rows <= MAX_DEFERRED_ROWS ? ROWS_AT_ONCE / p->rows : 1;
    for (long taken; tile < end; tile += taken) {
        taken = end - tile < most ? end - tile : most;
        multiply_tiles(p, tile, taken, own ? own : p->sums + tile * SUMS_OF_TILE);
    }
}

/* Quantizes one row of x to unsigned integers from 1 to 255, zero point 128; its scale goes to row_scales. */
static void quantize_row(void *args, long row) {
    const struct packed *p = args;
    long depth = p->depth;
    const bf16 *x = p->source + row * p->ld;
    uint8_t *out = (uint8_t *)(p->plain + row * p->plain_row);
    vec most = splat(1e-20f);
    for (long k = 0; k < depth; k += LANES) most = largest(most, absolute(load_bf16(x + k, depth - k)));
    float scale = largest_of(most) / 127.0f;
    ((float *)p->row_scales)[row] = scale;
    for (long k = 0; k < depth; k += LANES) {
        ivec q = to_integers(mul(load_bf16(x + k, depth - k), splat(1.0f / scale)));
        store_bytes(out + k, iadd(q, isplat(128)), depth - k);
    }
}

/* Rows of x to be packed as [units][step], `step` rows at a time: `multiply` then reads them as one stream. */
struct rows_to_pack {
    const struct packed *p;
    unit *out;
};

static long num_tiles(const struct packed *p) { return ceil_div(p->to.w->columns, TILE); }

static long num_parts(const struct packed *p) { return ceil_div(p->num_units, UNITS_OF_PART); }

static void pack_part(void *args, long item) {
    const struct rows_to_pack *a = args;
    long num_units = a->p->num_units, parts = num_parts(a->p), m = item / parts * a->p->step;
    long rows = a->p->rows - m < a->p->step ? a->p->rows - m : a->p->step;
    long begin = item % parts * UNITS_OF_PART, end = begin + UNITS_OF_PART < num_units ? begin + UNITS_OF_PART : num_units;
    for (long k = begin; k < end; k += LANES)
        for (long start = 0; start < rows; start += PACKED_ROWS)
            pack_units(a->out + m * num_units + k * rows + start, rows, a->p->plain + (m + start) * a->p->plain_row + k,
                       a->p->plain_row, rows - start, num_units - k, a->p->kind);
}

/* Copies a row of x, padded with zeros. */
static void copy_row(void *args, long row) {
    const struct rows_to_pack *a = args;
    const struct packed *p = a->p;
    for (long k = 0; k < p->num_units; k += LANES)
        istore((int32_t *)(a->out + row * p->row + k), iload_first(p->plain + row * p->plain_row + k, p->depth / 2 - k));
}

/* Rows a pass: passes as equal as possible, but none of ODD_LATENCY_ROWS rows. */
static long rows_of_pass(long rows) {
    long passes = ceil_div(rows, MAX_ROWS), step = ceil_div(rows, passes), last = rows - (passes - 1) * step;
    int waits = step == ODD_LATENCY_ROWS || last == ODD_LATENCY_ROWS;
    return passes > 1 && waits && step < MAX_ROWS ? step + 1 : step;
}

static void pack_for_thread(void *args, long item) {
    struct rows_to_pack rows = {args, packed_rows(args)};
    (void)item;
    for (long i = 0; i < ceil_div(rows.p->rows, rows.p->step) * num_parts(rows.p); i++) pack_part(&rows, i);
}

/* Whether each thread packs its own copy of all rows. On AVX2 packing widens bfloat16 to float32, and reading rows that another
 * core packed, line by line from its cache, is as slow as packing them again. 2 cores of Zen 4, at least 64 tiles a thread: 8
 * rows 4 % faster, 34 to 252 rows 2 to 4 %. With fewer tiles packing is a larger part of each thread's time. (Units of 4 bytes,
 * on AVX512: 16 rows 4 % slower.) */
static int packs_per_thread(const struct packed *p) {
    return !IN_PLACE && (p->rows <= MAX_ROWS_PER_THREAD || num_tiles(p) >= MIN_TILES_PER_THREAD * threads());
}

/* Brings x into the layout that `multiply` reads: quantized, packed, or as it is. */
static void pack(struct packed *p) {
    long tile_rows = ceil_div(p->rows, LANES) * LANES;
    p->plain = (const int32_t *)p->source, p->plain_row = p->ld / 2;
    if (p->kind == WEIGHT_INT8) {
        p->plain_row = p->num_units + PADDING;
        p->plain = scratch(SCRATCH_INTEGERS, (tile_rows * p->plain_row + p->rows) * sizeof(int32_t));
        p->row_scales = (const float *)(p->plain + tile_rows * p->plain_row);
        for_rows(p->rows, p->depth, quantize_row, p);
    }
    p->x = (const unit *)p->plain, p->row = p->plain_row, p->column = 1, p->step = p->rows;
    if (HAS_TILES && p->rows > MAX_ROWS) p->step = MAX_ROWS;
    if (p->rows <= MAX_DIRECT_ROWS || (HAS_TILES && p->kind == WEIGHT_INT8)) return;
    if (!HAS_TILES) p->step = rows_of_pass(p->rows);
    p->row = HAS_TILES ? p->num_units + PADDING : 1;
    p->column = HAS_TILES ? 1 : p->step;
    struct rows_to_pack rows = {p, packs_per_thread(p) ? 0 : packed_rows(p)};
    p->x = rows.out;
    if (HAS_TILES)
        for_rows(p->rows, p->depth, copy_row, &rows);
    else if (p->x)
        parallel_for(ceil_div(p->rows, p->step) * num_parts(p), pack_part, &rows);
}

/* One linear of up to ROWS_AT_ONCE rows, its loop run after `first` (may be null). AMX is so fast that its input must come from
 * the L2 cache: a deep input is multiplied in parts. */
static void multiply_block(const struct loop *first, struct packed p) {
    p.kind = p.to.w->kind;
    p.num_units = ceil_div(p.depth / (p.kind == WEIGHT_INT8 ? 4 : 2), UNITS_OF_BLOCK) * UNITS_OF_BLOCK;
    pack(&p);
    long tiles = num_tiles(&p), step = p.num_units;
    long parts = HAS_TILES ? ceil_div(p.rows * p.num_units * sizeof(int32_t), MAX_INPUT_BYTES) : 1;
    if (parts > 1) {
        step = ceil_div(ceil_div(p.num_units, parts), UNITS_AT_ONCE) * UNITS_AT_ONCE;
        p.sums = scratch(SCRATCH_PART_SUMS, tiles * SUMS_OF_TILE * sizeof(int32_t));
    }
    for (p.begin = 0; p.begin < p.num_units; p.begin = p.end) {
        p.end = p.num_units - p.begin < step ? p.num_units : p.begin + step;
        struct loop loop = {.begin = p.x ? 0 : pack_for_thread, .range = multiply_range, .args = &p, .count = tiles};
        parallel_loops(first, &loop);
        first = 0;
    }
}

/* The output from row m on. */
static struct output output_from(struct output to, long m) {
    long start = m * to.w->columns;
    if (to.residual) to.residual += start;
    if (to.wide)
        to.wide += start;
    else
        to.y += start;
    return to;
}

static void linear(const struct loop *first, const bf16 *x, long ldx, struct output to, long rows) {
    long blocks = ceil_div(rows, ROWS_AT_ONCE), step = blocks ? (rows + blocks - 1) / blocks : 1;
    for (long m = 0; m < rows; m += step, first = 0) {
        long left = rows - m;
        multiply_block(first, (struct packed){.to = output_from(to, m),
                                              .source = x + m * ldx,
                                              .ld = ldx,
                                              .rows = left < step ? left : step,
                                              .depth = to.w->depth});
    }
}

void linear_beside(const struct loop *first, const bf16 *x, long ldx, const struct weight *w, bf16 *y, long rows) {
    linear(first, x, ldx, (struct output){.w = w, .y = y}, rows);
}

void linear_to_floats(const bf16 *x, long ldx, const struct weight *w, float *y, long rows) {
    linear(0, x, ldx, (struct output){.w = w, .wide = y}, rows);
}

/* The largest integer of an int8 weight; columns of a packed tile; the multiple of units to which the depth is padded. */
EXPORT int peregrine_max_weight(void) { return MAX_WEIGHT; }
EXPORT int peregrine_columns_of_tile(void) { return TILE; }
EXPORT int peregrine_units_of_block(void) { return UNITS_OF_BLOCK; }

/* x [rows, depth], row stride ldx (even); residual [rows, columns], or null; y [rows, columns]. */
EXPORT void peregrine_linear(const bf16 *x, long ldx, const struct weight *w, const bf16 *residual, bf16 *y, long rows) {
    linear(0, x, ldx, (struct output){.w = w, .residual = residual, .y = y}, rows);
}
