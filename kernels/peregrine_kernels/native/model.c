/* A parallel-attention Falcon from token ids to logits in one call: as within a layer (layer.c), each call from Python would
 * find its code and data evicted. */
#include "native.h"

#include <math.h>
#include <string.h>

struct model {
    const bf16 *table;        /* [vocabulary, hidden] */
    const float *frequencies; /* [head_dim / 2]; null: ALiBi */
    const struct layer *layers;
    const bf16 *norm[2]; /* weight and bias of the final norm */
    const struct weight *head;
    long num_layers, hidden, head_dim;
    float epsilon;
};

/* cos and sin of a step's positions: [rows, head_dim] each, both halves equal. */
struct rotary_tables {
    const struct model *model;
    const int64_t *positions; /* [rows] */
    bf16 *cos, *sin;
};

/* Computes angles in float32, as transformers does. */
static void compute_rotary(void *args, long row) {
    const struct rotary_tables *p = args;
    long half = p->model->head_dim / 2;
    float position = p->positions[row];
    for (long k = 0; k < half; k += LANES) {
        long count = half - k < LANES ? half - k : LANES;
        float cosines[LANES] = {0}, sines[LANES] = {0};
        for (long i = 0; i < count; i++) {
            float angle = position * p->model->frequencies[k + i];
            cosines[i] = cosf(angle), sines[i] = sinf(angle);
        }
        for (int twice = 0; twice < 2; twice++) {
            long at = row * 2 * half + twice * half + k;
            store_bf16(p->cos + at, load(cosines), count);
            store_bf16(p->sin + at, load(sines), count);
        }
    }
}

/* out[i] = table[rows[i]]; rows of `width` elements. */
static void gather(const bf16 *table, const int64_t *rows, long count, long width, bf16 *out) {
    for (long i = 0; i < count; i++) memcpy(out + i * width, table + rows[i] * width, width * sizeof(bf16));
}

/* token_ids, positions [rows]; pages: each layer's, of `kind`, an enum kv_kind; out [rows, hidden]: the input of the head; sampled [num_sampled]: the rows to
 * project, or null for the first num_sampled; logits [num_sampled, vocabulary]. */
EXPORT void peregrine_model(const struct model *m, const struct step *step, const int64_t *token_ids, const int64_t *positions,
                            void *const *pages, long block_size, long kind, bf16 *out, const int64_t *sampled, long num_sampled,
                            float *logits) {
    gather(m->table, token_ids, step->rows, m->hidden, out);
    struct rotary_tables tables = {m, positions, 0, 0};
    if (m->frequencies) {
        long size = step->rows * m->head_dim;
        tables.cos = scratch(SCRATCH_POSITIONS, 2 * size * sizeof(bf16)), tables.sin = tables.cos + size;
        for_rows(step->rows, m->head_dim, compute_rotary, &tables);
    }
    for (long i = 0; i < m->num_layers; i++)
        peregrine_parallel_layer(m->layers + i, step, tables.cos, tables.sin, out, pages[i], out, block_size, kind, 1);
    peregrine_layer_norm(out, m->norm[0], m->norm[1], out, step->rows, m->hidden, m->epsilon);
    if (!num_sampled) return;
    const bf16 *last = out;
    if (sampled) {
        bf16 *some = scratch(SCRATCH_SAMPLED, num_sampled * m->hidden * sizeof(bf16));
        gather(out, sampled, num_sampled, m->hidden, some);
        last = some;
    }
    linear_to_floats(last, m->hidden, m->head, logits, num_sampled);
}
