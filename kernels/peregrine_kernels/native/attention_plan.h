/* How attention's work is divided: sequences into tiles of query rows, decodes also into splits of their tokens, and where each
 * item's rows and tokens are. Part of attention.c, which alone includes it. */
#pragma once

#include "kv_pages.h"

enum {
    TILE = 2 * LANES, /* query rows of a tile */
    HAS_TILES = UNITS_OF_BLOCK > 1,
    SEGMENT = 128, /* tokens that a tile reads at a time */
    SPLIT = 512,   /* tokens of a decode that one item reads */
};

/* Items are (split, tile) pairs, numbered over all sequences, the tiles of a split one after the other: they read the same K
 * and V. Prefix sums give each sequence's first. */
struct plan {
    struct attention a;
    const long *first_item;    /* [num_sequences + 1] */
    const long *first_tile;    /* [num_sequences + 1]: tiles of all KV heads */
    const long *first_segment; /* [num_sequences + 1]: segments of V of all KV heads that several tiles read */
    int32_t *values;           /* those segments, each in the layout of `load_values` */
    unit *keys;                /* K of those segments, if it is of 8 bits, in the layout of `load_keys` */
    long num_items;
    float *partials; /* [num_items][partial_size]: maximum, sum and out of each item, if a sequence has several splits */
    long partial_size;
};

/* The position of an item in the batch. */
struct place {
    long sequence, head, tile, split, num_splits;
    long first_row, rows;          /* of the sequence's query rows at this KV head */
    long first_query, num_queries; /* index of the sequence's first query token in the batch; its query tokens */
    long start, stop;              /* the range of tokens that the item reads */
};

/* Units of a head's elements, padded. */
static long num_units(const struct attention *a) { return ceil_div(a->head_dim / 2, UNITS_OF_BLOCK) * UNITS_OF_BLOCK; }

/* Units from one token's K to the next one's where it is loaded: whole vectors are stored. */
static long key_units(const struct attention *a) { return ceil_div(num_units(a), LANES) * LANES; }

/* Pairs of `count` tokens, padded. */
static long num_pairs(long count) { return ceil_div(ceil_div(count, 2), UNITS_OF_BLOCK) * UNITS_OF_BLOCK; }

static long num_splits(const struct attention *a, long sequence) {
    long queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
    return queries == 1 ? ceil_div(a->context_lengths[sequence], SPLIT) : 1;
}

static long num_tiles(const struct attention *a, long sequence) {
    long queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
    return a->num_kv_heads * ceil_div(queries * a->group, TILE);
}

/* The sequence of an item: the last whose first item is at most `item`, by bisection. */
static long sequence_of(const long *firsts, long num_sequences, long item) {
    long low = 0, high = num_sequences;
    while (high - low > 1) {
        long middle = (low + high) / 2;
        if (firsts[middle] <= item)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The position of a tile and split of a sequence. Tiles are numbered from the last, which reads the most tokens, so that the
 * longest items start first. */
static struct place place_of(const struct attention *a, long sequence, long tile, long split) {
    struct place at = {.sequence = sequence, .split = split, .num_splits = num_splits(a, sequence)};
    at.first_query = a->query_starts[sequence];
    at.num_queries = a->query_starts[sequence + 1] - at.first_query;
    long all_rows = at.num_queries * a->group, tiles = ceil_div(all_rows, TILE);
    at.head = tile / tiles;
    at.tile = tiles - 1 - tile % tiles;
    at.first_row = at.tile * TILE;
    at.rows = all_rows - at.first_row < TILE ? all_rows - at.first_row : TILE;
    long last_query = (at.first_row + at.rows - 1) / a->group;
    long end = a->context_lengths[sequence] - at.num_queries + last_query + 1;
    at.start = split * SPLIT;
    at.stop = at.num_splits > 1 && at.start + SPLIT < end ? at.start + SPLIT : end;
    return at;
}

static struct place place_of_item(const struct plan *p, long item) {
    long sequence = sequence_of(p->first_item, p->a.num_sequences, item), tiles = num_tiles(&p->a, sequence);
    long local = item - p->first_item[sequence];
    return place_of(&p->a, sequence, local % tiles, local / tiles);
}

/* Units of a loaded segment of V. */
static long segment_size(const struct attention *a) { return SEGMENT / 2 * ceil_div(a->head_dim, TILE) * TILE; }

/* Segments of V that are loaded once for several tiles of a sequence; 0 if only one tile of a KV head reads them. */
static long num_segments(const struct attention *a, long sequence) {
    long tiles = num_tiles(a, sequence), queries = a->query_starts[sequence + 1] - a->query_starts[sequence];
    if (queries == 1 || tiles == a->num_kv_heads) return 0;
    return a->num_kv_heads * ceil_div(a->context_lengths[sequence], SEGMENT);
}
