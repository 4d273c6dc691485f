/* y = activation(x W^T + bias) + residual in bfloat16, sums in float32; or in int32, where W is integers times a scale a
 * column, and each row of x is made integers times a scale of its own (W8A8).
 *
 * W [N, K] is packed in tiles of one or two vectors of columns of y: [N / TILE][K / 2][TILE][2], or [N / TILE][K / 4][TILE][4]
 * for integers, so that a thread reads it as one stream. Up to 14 rows of x, 6 with AVX2, 32 with AMX, meet each weight while
 * it passes through registers; further rows find its tile in the cache. */
#include "native.h"

enum {
    TILE = VECTORS * LANES, /* columns */
    HAS_TILES = UNITS_OF_BLOCK > 1,
    UNIT_BYTES = TILE * sizeof(int32_t),
    ROWS_AT_ONCE = HAS_TILES ? 256 : 252, /* rows of x that are packed together: 1 MiB at K = 2048, 2 as float32 */
    UNITS_OF_PART = 256,              /* of rows that a thread packs: few, since lines come from the core that wrote them */
    UNITS_AT_ONCE = HAS_TILES ? 256 : 512, /* of a tile: 32 KiB, within a first-level cache; AVX512 64, in a second */
    MAX_INPUT_BYTES = 5 << 18,        /* of x that AMX meets with all tiles, out of the second-level cache */
    SUMS_OF_TILE = TILE * ROWS_AT_ONCE,
    PADDING = HAS_TILES ? LANES : 0,  /* units: a line between rows keeps them from evicting one another */
    MAX_DIRECT_ROWS = IN_PLACE && !HAS_TILES ? 6 : 0, /* read in place: more rows, 4 KiB apart, evict one another */
    MAX_OWN_ROWS = 32, OWN_TILES = 64, /* see `packs_alone` */
    /* Whose tiles are finished many at once: to pause after each leaves a gap in what is read. */
    MAX_RUN_ROWS = HAS_TILES ? 0 : 1,
};

/* Whether a line's products are done so soon that AVX2 waits for memory alone. A core of Zen 4 then reads ahead best by
 * itself, helped a little: with each line prefetched 6 KiB ahead, a decode of 1.15 B parameters takes 24 % longer in
 * integers and 3 % in bfloat16 where memory gives 55 GB/s; in bfloat16 1 % where it gives 32. */
static int is_light(long rows) { return VECTORS == 1 && rows == 1; }

/* Bytes of a weight that are prefetched while it is met for the first time; measured where memory gave 30 GB/s, and where
 * it gave 50: 6 KiB for all rows costs a tenth of the time of one or two, whose sums wait for little else, and 3 % of that of
 * 8. AMX does not care. */
static long ahead(long rows) {
    if (HAS_TILES) return 1536;
    if (is_light(rows)) return 8192;
    return VECTORS == 2 && rows <= 2 ? 2560 : rows <= 6 ? 6144 : 8192;
}

enum activation { NONE, GELU, GELU_TANH, RELU, SILU };

/* One linear of an input; residual and y are [rows, columns], residual may be null. */
struct output {
    const struct weight *w;
    const bf16 *residual;
    bf16 *y;
    float *wide; /* in place of y, if not null: the same values as float32 */
};

/* Rows of an input as `multiply` reads them, and the linear that they go through. */
struct packed {
    struct output to;
    const bf16 *source; /* [rows, depth] */
    long ld, rows, depth;
    enum kind kind;
    long num_units;
    const int32_t *plain;   /* the source itself, or its integers */
    long plain_row;
    const unit *x;          /* what is multiplied: that, or that in packed rows; null: what each thread packs for itself */
    long row, column, step; /* of x, in units; rows of one `multiply` */
    long begin, end;        /* of the units that are multiplied now */
    int32_t *sums;          /* of all tiles, where that is in parts */
    const float *row_scales;
};

/* 1 / x to float32's precision: a 14-bit estimate and one of Newton's steps take a third of a division's time. */
INLINE vec reciprocal(vec x) {
    vec estimate = estimate_reciprocal(x);
    return mul(estimate, fnmadd(x, estimate, splat(2.0f)));
}

/* erf by Abramowitz and Stegun 7.1.26, to 1.5e-7. */
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
    /* x / 2 (1 + erf): x - x / 2 * tail on the right, x / 2 * tail on the left */
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

/* What `finish` will read and write: as far as it is out of every cache, it would wait for each line. */
static void prefetch(const struct output *to, long column, long row, int rows) {
    const struct weight *w = to->w;
    for (long m = row; m < row + rows; m++) {
        if (to->y) __builtin_prefetch(to->y + m * w->columns + column, 1);
        if (to->residual) __builtin_prefetch(to->residual + m * w->columns + column);
    }
    if (w->scales) __builtin_prefetch(w->scales + column), __builtin_prefetch(w->offsets + column);
    if (w->bias) __builtin_prefetch(w->bias + column);
}

INLINE void store_result(struct output to, long at, vec y, long count) {
    if (to.wide)
        store_first(to.wide + at, rounded(y), count);
    else
        store_bf16(to.y + at, y, count);
}

/* The sums of some rows of a tile, from float32 or int32 to what leaves the layer. `kind` and `activation` are the
 * weight's, as constants: nothing is decided row by row. */
INLINE void finish_rows(const struct packed *p, const int32_t *sums, long ld, long column, long row, int rows,
                        const enum kind kind, const enum activation activation) {
    const struct output to = p->to;
    const struct weight w = *to.w;
    const float *row_scales = p->row_scales;
    long left = w.columns - column;
    vec scales = zero(), offsets = scales, bias = scales;
    if (w.bias) bias = load_bf16(w.bias + column, left);
    if (kind == INT8) {
        scales = load_first(w.scales + column, left);
        offsets = load_first(w.offsets + column, left);
    }
    for (long m = row; m < row + rows; m++) {
        ivec sum = iload(sums + (m - row) * ld);
        vec y = as_floats(sum);
        if (kind == INT8) {
            y = sub(of_integers(sum), offsets);
            y = mul(y, mul(scales, splat(row_scales[m])));
        }
        /* transformers rounds the product before it adds the bias. */
        if (w.bias) y = add(rounded(y), bias);
        y = activate(y, activation);
        if (to.residual) y = add(y, load_bf16(to.residual + m * w.columns + column, left));
        store_result(to, m * w.columns + column, y, left);
    }
}

#define CASE(activation)                                                       \
    case activation:                                                           \
        if (p->kind == INT8)                                                   \
            finish_rows(p, sums, ld, column, row, rows, INT8, activation);     \
        else                                                                   \
            finish_rows(p, sums, ld, column, row, rows, BFLOAT16, activation); \
        break;

static void finish(const struct packed *p, const int32_t *sums, long ld, long column, long row, int rows) {
    switch ((enum activation)p->to.w->activation) { CASE(NONE) CASE(GELU) CASE(GELU_TANH) CASE(RELU) CASE(SILU) }
}

/* `next`: bytes to what comes after this part of a tile. One pass fetches its own weights; of several, each fetches its share
 * of what comes next. */
static void fetch_ahead(struct product *p, long rows, long pass, long passes, long next) {
    p->ahead = passes > 1 ? next : ahead(rows);
    p->every = is_light(rows) ? 8 : passes;
    p->since = pass;
}

/* The sums of a tile that is complete, a vector of columns after the other. */
static void finish_tile(const struct packed *p, const int32_t *sums, long tile, long row, int rows) {
    for (long column = tile * TILE, i = 0; i < TILE && column + i < p->to.w->columns; i += LANES)
        finish(p, sums + i, TILE, column + i, row, rows);
}

/* Memory for an input in packed rows, of this thread. */
static unit *packed_rows(const struct packed *p) {
    return scratch(SCRATCH_INPUT, ceil_div(p->rows, LANES) * LANES * (p->num_units + PADDING) * sizeof(unit));
}

/* All rows of x with a tile; with several, if all rows are one pass. */
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
                .kind = p->kind, .x = x, .row = p->row, .column = p->column == 1 ? 1 : rows, .w = w, .ldw = TILE,
                .num_units = units, .c = sums + m * TILE, .ldc = TILE, .accumulates = k > 0,
                .more_tiles = tiles - 1,
            };
            fetch_ahead(&product, p->rows, m / p->step, passes, next * UNIT_BYTES);
            if (is_last && tiles == 1) prefetch(&p->to, tile * TILE, m, rows);
            multiply(&product, rows, VECTORS);
            for (long i = 0; is_last && i < tiles; i++)
                finish_tile(p, sums + (i * rows + m) * TILE, tile + i, m, rows);
        }
    }
}

static void multiply_run(void *args, long tile, long end) {
    const struct packed *p = args;
    int32_t *own = p->sums ? 0 : scratch(SCRATCH_SUMS, SUMS_OF_TILE * sizeof(int32_t));
    long most = p->rows <= MAX_RUN_ROWS ? ROWS_AT_ONCE / p->rows : 1;
    for (long taken; tile < end; tile += taken) {
        taken = end - tile < most ? end - tile : most;
        multiply_tiles(p, tile, taken, own ? own : p->sums + tile * SUMS_OF_TILE);
    }
}

/* x of one row as integers from 1 to 255 around 128; what one of them stands for goes to row_scales. */
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

/* Rows of x, `step` at a time, as [units][step]: `multiply` then reads them as one stream. */
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

/* A row of x, filled up with zeros. */
static void copy_row(void *args, long row) {
    const struct rows_to_pack *a = args;
    const struct packed *p = a->p;
    for (long k = 0; k < p->num_units; k += LANES)
        istore((int32_t *)(a->out + row * p->row + k), iload_first(p->plain + row * p->plain_row + k, p->depth / 2 - k));
}

/* As even as can be, but none of WAITING_ROWS. */
static long rows_of_pass(long rows) {
    long passes = ceil_div(rows, MAX_ROWS), step = ceil_div(rows, passes), last = rows - (passes - 1) * step;
    int waits = step == WAITING_ROWS || last == WAITING_ROWS;
    return passes > 1 && waits && step < MAX_ROWS ? step + 1 : step;
}

static void pack_own(void *args, long item) {
    struct rows_to_pack rows = {args, packed_rows(args)};
    (void)item;
    for (long i = 0; i < ceil_div(rows.p->rows, rows.p->step) * num_parts(rows.p); i++) pack_part(&rows, i);
}

/* Whether each thread packs all rows for itself, where packing makes bfloat16 float32: what another has packed comes from its
 * cache, line by line, and is written anew no faster. 2 cores of Zen 4: 8 rows 4 % faster, 34 to 252 rows 2 to 4 %, 64 tiles a
 * thread or more. With fewer, packing would be a larger part of each thread's time. (Units of 4 bytes: 16 rows 4 % slower.) */
static int packs_alone(const struct packed *p) {
    return !IN_PLACE && (p->rows <= MAX_OWN_ROWS || num_tiles(p) >= OWN_TILES * threads());
}

/* x as `multiply` reads it. */
static void pack(struct packed *p) {
    long tile_rows = ceil_div(p->rows, LANES) * LANES;
    p->plain = (const int32_t *)p->source, p->plain_row = p->ld / 2;
    if (p->kind == INT8) {
        p->plain_row = p->num_units + PADDING;
        p->plain = scratch(SCRATCH_INTEGERS, (tile_rows * p->plain_row + p->rows) * sizeof(int32_t));
        p->row_scales = (const float *)(p->plain + tile_rows * p->plain_row);
        for_rows(p->rows, p->depth, quantize_row, p);
    }
    p->x = (const unit *)p->plain, p->row = p->plain_row, p->column = 1, p->step = p->rows;
    if (HAS_TILES && p->rows > MAX_ROWS) p->step = MAX_ROWS;
    if (p->rows <= MAX_DIRECT_ROWS || (HAS_TILES && p->kind == INT8)) return;
    if (!HAS_TILES) p->step = rows_of_pass(p->rows);
    p->row = HAS_TILES ? p->num_units + PADDING : 1;
    p->column = HAS_TILES ? 1 : p->step;
    struct rows_to_pack rows = {p, packs_alone(p) ? 0 : packed_rows(p)};
    p->x = rows.out;
    if (HAS_TILES)
        for_rows(p->rows, p->depth, copy_row, &rows);
    else if (p->x)
        parallel_for(ceil_div(p->rows, p->step) * num_parts(p), pack_part, &rows);
}

/* An input through its linear, behind `first`, if there is that. AMX is so fast that an input must come out of the
 * second-level cache: a deep one is multiplied in parts. */
static void run(const struct loop *first, struct packed p) {
    p.kind = p.to.w->scales ? INT8 : BFLOAT16;
    p.num_units = ceil_div(p.depth / (p.kind == INT8 ? 4 : 2), UNITS_OF_BLOCK) * UNITS_OF_BLOCK;
    pack(&p);
    long tiles = num_tiles(&p), step = p.num_units;
    long parts = HAS_TILES ? ceil_div(p.rows * p.num_units * sizeof(int32_t), MAX_INPUT_BYTES) : 1;
    if (parts > 1) {
        step = ceil_div(ceil_div(p.num_units, parts), UNITS_AT_ONCE) * UNITS_AT_ONCE;
        p.sums = scratch(SCRATCH_PART_SUMS, tiles * SUMS_OF_TILE * sizeof(int32_t));
    }
    for (p.begin = 0; p.begin < p.num_units; p.begin = p.end) {
        p.end = p.num_units - p.begin < step ? p.num_units : p.begin + step;
        struct loop loop = {.begin = p.x ? 0 : pack_own, .run = multiply_run, .args = &p, .count = tiles};
        parallel_loops(first, &loop);
        first = 0;
    }
}

/* From row m on. */
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
        run(first, (struct packed){.to = output_from(to, m), .source = x + m * ldx, .ld = ldx,
                                   .rows = left < step ? left : step, .depth = to.w->depth});
    }
}

void linear_beside(const struct loop *first, const bf16 *x, long ldx, const struct weight *w, bf16 *y, long rows) {
    linear(first, x, ldx, (struct output){.w = w, .y = y}, rows);
}

void linear_to_floats(const bf16 *x, long ldx, const struct weight *w, float *y, long rows) {
    linear(0, x, ldx, (struct output){.w = w, .wide = y}, rows);
}

/* How large the integers of a weight may be; how it is packed: columns of a tile, and of how many units its depth is a
 * multiple. */
EXPORT int peregrine_max_weight(void) { return MAX_WEIGHT; }
EXPORT int peregrine_columns_of_tile(void) { return TILE; }
EXPORT int peregrine_units_of_block(void) { return UNITS_OF_BLOCK; }

/* x [rows, depth], row stride ldx (even); residual [rows, columns], or null; y [rows, columns]. */
EXPORT void peregrine_linear(const bf16 *x, long ldx, const struct weight *w, const bf16 *residual, bf16 *y,
                             long rows) {
    linear(0, x, ldx, (struct output){.w = w, .residual = residual, .y = y}, rows);
}
