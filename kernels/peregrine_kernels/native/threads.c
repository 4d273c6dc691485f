/* Parallel loops on torch's threads, and thread-local scratch memory. */
#include "native.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* GOMP_parallel of torch's OpenMP runtime, passed in by `peregrine_threads`: linking a runtime would start a second set of
 * threads. */
static void (*omp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int num_threads = 1;

EXPORT void peregrine_threads(void *gomp_parallel, int count) {
    omp_parallel = (void (*)(void (*)(void *), void *, unsigned, unsigned))gomp_parallel;
    num_threads = count;
}

long threads(void) { return num_threads; }

enum {
    GUIDED_DIVISOR = 2, /* a thread takes 1 / (GUIDED_DIVISOR * num_threads) of the items that are left */
    MAX_LOOPS = 2,
};

/* The loops that all threads run, and the next item of each. */
struct shared {
    const struct loop *loops[MAX_LOOPS];
    atomic_long next[MAX_LOOPS];
};

static void run_items(const struct loop *loop, long item, long end) {
    if (loop->range)
        loop->range(loop->args, item, end);
    else
        for (; item < end; item++) loop->each(loop->args, item);
}

/* Guided scheduling: ranges of items, long ones first. Within a range a thread finds the start of its next tile prefetched. */
static void take_items(const struct loop *loop, atomic_long *next) {
    int has_begun = !loop->begin;
    long item = atomic_load(next);
    while (item < loop->count) {
        long left = loop->count - item, taken = (left + GUIDED_DIVISOR * num_threads - 1) / (GUIDED_DIVISOR * num_threads);
        if (!atomic_compare_exchange_weak(next, &item, item + taken)) continue;
        if (!has_begun) loop->begin(loop->args, item), has_begun = 1;
        run_items(loop, item, item + taken);
        item = atomic_load(next);
    }
}

static void take_all(void *args) {
    struct shared *shared = args;
    begin_tiles();
    for (int i = 0; i < MAX_LOOPS; i++)
        if (shared->loops[i]) take_items(shared->loops[i], shared->next + i);
    end_tiles();
}

void parallel_loops(const struct loop *first, const struct loop *second) {
    struct shared shared = {{first, second}, {0, 0}};
    long count = second->count + (first ? first->count : 0);
    if (count > 1 && num_threads > 1 && omp_parallel)
        omp_parallel(take_all, &shared, num_threads, 0);
    else
        take_all(&shared);
}

void parallel_for(long count, task *run, void *args) {
    parallel_loops(0, &(struct loop){.each = run, .args = args, .count = count});
}

void *scratch(int slot, long bytes) {
    static _Thread_local struct {
        void *memory;
        long bytes;
    } slots[NUM_SCRATCH];
    if (slots[slot].bytes < bytes) {
        free(slots[slot].memory);
        slots[slot].bytes = (bytes + 4095) / 4096 * 4096;
        slots[slot].memory = aligned_alloc(4096, slots[slot].bytes);
        if (!slots[slot].memory) {
            fprintf(stderr,
                    "peregrine: no memory for %ld MiB of intermediate results: lower --max-batch-prefill-tokens, "
                    "or --max-batch-total-tokens, whose cache takes the rest\n",
                    slots[slot].bytes >> 20);
            abort();
        }
    }
    return slots[slot].memory;
}
