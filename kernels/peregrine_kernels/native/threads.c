/* Threads, and memory of each of them. */
#include "native.h"

#include <stdatomic.h>
#include <stdlib.h>

/* torch's own OpenMP runtime, handed over by `peregrine_threads`: linking one would start a second set of threads. */
static void (*omp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int num_threads = 1;

EXPORT void peregrine_threads(void *gomp_parallel, int count) {
    omp_parallel = (void (*)(void (*)(void *), void *, unsigned, unsigned))gomp_parallel;
    num_threads = count;
}

long threads(void) { return num_threads; }

enum {
    SHARES = 2, /* of what is left, a thread takes one in so many times the threads */
    MAX_LOOPS = 2,
};

/* Loops that threads go through together, and how far they have come in each. */
struct shared {
    const struct loop *loops[MAX_LOOPS];
    atomic_long next[MAX_LOOPS];
};

static void run_items(const struct loop *loop, long item, long end) {
    if (loop->run)
        loop->run(loop->args, item, end);
    else
        for (; item < end; item++) loop->each(loop->args, item);
}

/* Runs of items, long ones first: a thread that goes on where it was finds the start of the next tile prefetched. */
static void take_items(const struct loop *loop, atomic_long *next) {
    int has_begun = !loop->begin;
    long item = atomic_load(next);
    while (item < loop->count) {
        long left = loop->count - item, taken = (left + SHARES * num_threads - 1) / (SHARES * num_threads);
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
        if (!slots[slot].memory) abort();
    }
    return slots[slot].memory;
}
