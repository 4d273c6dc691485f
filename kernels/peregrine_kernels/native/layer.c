/* A layer of a parallel-attention Falcon in one call. Between GEMMs that stream tens of megabytes through every cache, each
 * call from Python finds its code and data cold: seven calls a layer cost 0.2 ms, one costs up to 0.1. */
#include "native.h"

/* The MLP's first linear. */
struct up {
    const struct weight *w;
    const bf16 *normed;
    bf16 *activated;
    long rows;
};

/* Where there is less attention than threads, memory serves the others. */
static void with_attention(const struct loop *attention, void *args) {
    const struct up *up = args;
    linear_beside(attention, up->normed, up->w->depth, up->w, up->activated, up->rows);
}

/*  x -+- attention_norm - qkv - rotary, cache, attention - dense: + x -+- down: + - out
 *     +- mlp_norm (or the same) - up: activation ----------------------+
 *
 * x, out [rows, hidden], may be the same; cos, sin [rows, head_dim], or null. The residual is added by one rank only:
 * has_residual. */
EXPORT void peregrine_parallel_layer(const struct layer *l, const struct step *step, const bf16 *cos, const bf16 *sin,
                                     const bf16 *x, bf16 *pages, bf16 *out, long block_size, long has_residual) {
    const struct step s = *step;
    long heads = l->dense->depth, qkv_width = l->qkv->columns, hidden = l->qkv->depth, ffn = l->down->depth;
    bf16 *normed = scratch(SCRATCH_LAYER, s.rows * (2 * hidden + qkv_width + heads + ffn) * sizeof(bf16));
    bf16 *qkv = normed + s.rows * hidden, *attended = qkv + s.rows * qkv_width;
    bf16 *activated = attended + s.rows * heads, *sum = activated + s.rows * ffn;
    peregrine_layer_norm(x, l->attention_norm[0], l->attention_norm[1], normed, s.rows, hidden, l->epsilon);
    peregrine_linear(normed, hidden, l->qkv, 0, qkv, s.rows);
    peregrine_rotary_kv_write(qkv, qkv_width, cos, sin, s.slots, pages, s.rows, l->num_heads, l->num_kv_heads,
                              l->head_dim);
    if (l->mlp_norm[0]) peregrine_layer_norm(x, l->mlp_norm[0], l->mlp_norm[1], normed, s.rows, hidden, l->epsilon);
    struct attention attention = {qkv, qkv_width, pages, s.block_tables, s.max_blocks, block_size, s.query_starts,
                                  s.context_lengths, s.num_sequences, l->num_kv_heads, l->num_heads / l->num_kv_heads,
                                  l->head_dim, l->slopes, attended, heads};
    attend(&attention, with_attention, &(struct up){l->up, normed, activated, s.rows});
    peregrine_linear(attended, heads, l->dense, has_residual ? x : 0, sum, s.rows);
    peregrine_linear(activated, ffn, l->down, sum, out, s.rows);
}
