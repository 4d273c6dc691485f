/* Threads, and memory of each of them. */
#include "native.h"

#include <stdatomic.h>
#include <stdlib.h>

/* torch's own OpenMP runtime, handed over by `peregrine_threads`: linking one would start a second set of threads. */
static void (*omp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int num_threads = 1;

EXPORT void peregrine_threads(void *gomp_parallel, int threads) {
    omp_parallel = (void (*)(void (*)(void *), void *, unsigned, unsigned))gomp_parallel;
    num_threads = threads;
}

enum { SHARES = 2 /* of what is left, a thread takes one in so many times the threads */ };

struct loop {
    task *begin;
    task_of_run *run;
    void *args;
    long count;
    atomic_long next;
};

/* Runs of items, long ones first: a thread that goes on where it was finds the start of the next tile prefetched. */
static void take_items(void *pointer) {
    struct loop *loop = pointer;
    begin_tiles();
    int has_begun = !loop->begin;
    long item = atomic_load(&loop->next);
    while (item < loop->count) {
        long left = loop->count - item, taken = (left + SHARES * num_threads - 1) / (SHARES * num_threads);
        if (!atomic_compare_exchange_weak(&loop->next, &item, item + taken)) continue;
        if (!has_begun) loop->begin(loop->args, item), has_begun = 1;
        loop->run(loop->args, item, item + taken);
        item = atomic_load(&loop->next);
    }
    end_tiles();
}

void parallel_runs(task *begin, long count, task_of_run *run, void *args) {
    struct loop loop = {begin, run, args, count, 0};
    if (count > 1 && num_threads > 1 && omp_parallel)
        omp_parallel(take_items, &loop, num_threads, 0);
    else
        take_items(&loop);
}

struct each {
    task *run;
    void *args;
};

static void run_each(void *args, long item, long end) {
    const struct each *each = args;
    for (; item < end; item++) each->run(each->args, item);
}

void parallel_for(long count, task *run, void *args) {
    struct each each = {run, args};
    parallel_runs(0, count, run_each, &each);
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
