/* A layer of a parallel-attention Falcon in one call. GEMMs stream tens of megabytes through every cache, so each call from
 * Python between them finds its code and data evicted: seven calls a layer cost 0.2 ms, one costs up to 0.1. */
#include "native.h"

/* The MLP's first linear and its operands. */
struct up {
    const struct weight *w;
    const bf16 *normed;
    bf16 *activated;
    long rows;
};

/* Runs attention's loop beside the MLP's first linear: threads without attention items use the memory bandwidth. */
static void with_attention(const struct loop *attention, void *args) {
    const struct up *up = args;
    linear_beside(attention, up->normed, up->w->depth, up->w, up->activated, up->rows);
}

/*  x -+- attention_norm - qkv - rotary, cache, attention - dense: + x -+- down: + - out
 *     +- mlp_norm (or the same) - up: activation ----------------------+
 *
 * x, out [rows, hidden], may be the same; cos, sin [rows, head_dim], or null; pages of `kind`, an enum kv_kind; has_residual:
 * whether to add x (with tensor parallelism, one rank does). */
EXPORT void peregrine_parallel_layer(const struct layer *l, const struct step *step, const bf16 *cos, const bf16 *sin,
                                     const bf16 *x, void *pages, bf16 *out, long block_size, long kind, long has_residual) {
    const struct step s = *step;
    long heads = l->dense->depth, qkv_width = l->qkv->columns, hidden = l->qkv->depth, ffn = l->down->depth;
    bf16 *normed = scratch(SCRATCH_LAYER, s.rows * (2 * hidden + qkv_width + heads + ffn) * sizeof(bf16));
    bf16 *qkv = normed + s.rows * hidden, *attended = qkv + s.rows * qkv_width;
    bf16 *activated = attended + s.rows * heads, *sum = activated + s.rows * ffn;
    peregrine_layer_norm(x, l->attention_norm[0], l->attention_norm[1], normed, s.rows, hidden, l->epsilon);
    peregrine_linear(normed, hidden, l->qkv, 0, qkv, s.rows);
    peregrine_rotary_kv_write(qkv, qkv_width, cos, sin, s.slots, pages, s.rows, l->num_heads, l->num_kv_heads, l->head_dim,
                              block_size, kind);
    if (l->mlp_norm[0]) peregrine_layer_norm(x, l->mlp_norm[0], l->mlp_norm[1], normed, s.rows, hidden, l->epsilon);
    struct attention attention = {
        .q = qkv,
        .ldq = qkv_width,
        .pages = {pages, kind, block_size, l->num_kv_heads, l->head_dim},
        .block_tables = s.block_tables,
        .max_blocks = s.max_blocks,
        .query_starts = s.query_starts,
        .context_lengths = s.context_lengths,
        .num_sequences = s.num_sequences,
        .num_kv_heads = l->num_kv_heads,
        .group = l->num_heads / l->num_kv_heads,
        .head_dim = l->head_dim,
        .slopes = l->slopes,
        .out = attended,
        .ldo = heads,
    };
    attend(&attention, with_attention, &(struct up){l->up, normed, activated, s.rows});
    peregrine_linear(attended, heads, l->dense, has_residual ? x : 0, sum, s.rows);
    peregrine_linear(activated, ffn, l->down, sum, out, s.rows);
}
