/* y = activation(x W^T + bias) + residual in bfloat16, accumulated in float32; or W8A8, accumulated in int32: W is int8 with a
 * scale a column, and each row of x is quantized with a scale of its own.
 *
 * W [N, K] is packed in tiles of one or two vectors of columns of y: [N / TILE][K / 2][TILE][2], or [N / TILE][K / 4][TILE][4]
 * for integers, so that a thread reads it as one stream. Each weight in a register is multiplied with up to 14 rows of x (AVX2:
 * 6, AMX: 32); further rows read its tile from the cache. */
#include "linear.h"

enum {
    UNIT_BYTES = TILE * sizeof(int32_t),
    UNITS_OF_PART = 256, /* of a row that one thread packs at a time: few, since lines come from the core that wrote them */
    UNITS_AT_ONCE = HAS_TILES ? 256 : 512,            /* of a tile: 32 KiB fit into the L1 cache; AVX512: 64 KiB, into L2 */
    MAX_INPUT_BYTES = 5 << 18,                        /* of x that AMX multiplies with all tiles; fits into the L2 cache */
    MAX_DIRECT_ROWS = IN_PLACE && !HAS_TILES ? 6 : 0, /* of x read in place: more, 4 KiB apart, evict one another */
    MAX_ROWS_PER_THREAD = 32,
    MIN_TILES_PER_THREAD = 64, /* see `packs_per_thread` */
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

/* A single pass prefetches its own weights. Of several passes over the same weights, each prefetches 1 / passes of what follows
 * this part of the tile, `next` bytes ahead. */
static void set_prefetch(struct product *p, long rows, long pass, long passes, long next) {
    p->prefetch_distance = passes > 1 ? next : prefetch_distance(rows);
    p->prefetch_stride = is_memory_bound(rows) ? 8 : passes;
    p->prefetch_phase = pass;
}

unit *packed_rows(const struct packed *p) {
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
            if (is_last && tiles == 1) prefetch_outputs(&p->to, tile * TILE, m, rows);
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

/* -8 times the sum of each group of a row of quantized inputs. */
static void sum_groups(const struct packed *p, const int8_t *x, int32_t *eights) {
    for (long group = p->to.w->group, i = 0; i < p->depth / group; i++) {
        int sum = 0;
        for (long k = i * group; k < (i + 1) * group; k++) sum += x[k];
        eights[i] = -8 * sum;
    }
}

/* Quantizes one row of x to integers from -127 to 127, for WEIGHT_INT8 unsigned with zero point 128; its scale goes to
 * row_scales. */
static void quantize_row(void *args, long row) {
    const struct packed *p = args;
    long depth = p->depth;
    ivec zero_point = isplat(p->kind == WEIGHT_INT8 ? 128 : 0);
    const bf16 *x = p->source + row * p->ld;
    uint8_t *out = (uint8_t *)(p->plain + row * p->plain_row);
    vec most = splat(1e-20f);
    for (long k = 0; k < depth; k += LANES) most = largest(most, absolute(load_bf16(x + k, depth - k)));
    float scale = largest_of(most) / 127.0f;
    ((float *)p->row_scales)[row] = scale;
    for (long k = 0; k < depth; k += LANES) {
        ivec q = to_integers(mul(load_bf16(x + k, depth - k), splat(1.0f / scale)));
        store_bytes(out + k, iadd(q, zero_point), depth - k);
    }
    if (p->kind == WEIGHT_INT4) sum_groups(p, (const int8_t *)out, (int32_t *)p->eights + row * p->ld_eights);
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
    if (p->kind != WEIGHT_BF16) {
        p->plain_row = p->num_units + PADDING;
        p->ld_eights = p->kind == WEIGHT_INT4 ? p->depth / p->to.w->group : 0;
        long size = tile_rows * (p->plain_row + p->ld_eights);
        p->plain = scratch(SCRATCH_INTEGERS, (size + p->rows) * sizeof(int32_t));
        p->eights = p->plain + tile_rows * p->plain_row;
        p->row_scales = (const float *)(p->plain + size);
        for_rows(p->rows, p->depth, quantize_row, p);
    }
    p->x = (const unit *)p->plain, p->row = p->plain_row, p->column = 1, p->step = p->rows;
    if (HAS_TILES && p->rows > MAX_ROWS) p->step = MAX_ROWS;
    if (p->rows <= MAX_DIRECT_ROWS || (HAS_TILES && p->kind != WEIGHT_BF16)) return;
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
    p.num_units = ceil_div(p.depth / (p.kind == WEIGHT_BF16 ? 2 : 4), UNITS_OF_BLOCK) * UNITS_OF_BLOCK;
    pack(&p);
    long tiles = num_tiles(&p), step = p.num_units;
    long parts = HAS_TILES ? ceil_div(p.rows * p.num_units * sizeof(int32_t), MAX_INPUT_BYTES) : 1;
    if (parts > 1) {
        long multiple = p.kind == WEIGHT_INT4 ? p.to.w->group / 4 : UNITS_AT_ONCE;
        step = ceil_div(ceil_div(p.num_units, parts), multiple) * multiple;
        p.sums = scratch(SCRATCH_PART_SUMS, tiles * SUMS_OF_TILE * sizeof(int32_t));
    }
    range_task *range = p.kind == WEIGHT_INT4 ? multiply_int4_range : multiply_range;
    for (p.begin = 0; p.begin < p.num_units; p.begin = p.end) {
        p.end = p.num_units - p.begin < step ? p.num_units : p.begin + step;
        struct loop loop = {.begin = p.x ? 0 : pack_for_thread, .range = range, .args = &p, .count = tiles};
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
