/* A whole layer of a parallel-attention Falcon in one call. Between GEMMs that stream tens of megabytes through every
 * cache, each call from Python finds its code and data cold: seven calls a layer cost 0.2 ms, one costs 0.03. */
#include "native.h"

struct layer {
    const bf16 *attention_norm[2], *mlp_norm[2]; /* weight and bias; mlp_norm null: the MLP reads attention's */
    const struct weight *qkv, *up, *dense, *down;
    const float *slopes;
    long num_heads, num_kv_heads, head_dim;
    float epsilon;
};

struct step {
    const int64_t *slots, *block_tables, *query_starts, *context_lengths;
    long rows, max_blocks, num_sequences;
};

/*  x -+- attention_norm - qkv - rotary, cache, attention - dense: + x -+- down: + - out
 *     +- mlp_norm (or the same) - up: activation ----------------------+
 *
 * x, out [rows, hidden]; cos, sin [rows, head_dim], or null; pages of this layer. The residual is added by one rank
 * only: has_residual. */
EXPORT void peregrine_parallel_layer(const struct layer *l, const struct step *s, const bf16 *cos, const bf16 *sin,
                                     const bf16 *x, bf16 *pages, bf16 *out, long block_size, long has_residual) {
    long heads = l->dense->depth, qkv_width = l->qkv->columns, hidden = l->qkv->depth, ffn = l->down->depth;
    bf16 *normed = scratch(SCRATCH_LAYER, s->rows * (2 * hidden + qkv_width + heads + ffn) * sizeof(bf16));
    bf16 *qkv = normed + s->rows * hidden, *attended = qkv + s->rows * qkv_width;
    bf16 *activated = attended + s->rows * heads, *sum = activated + s->rows * ffn;
    peregrine_layer_norm(x, l->attention_norm[0], l->attention_norm[1], normed, s->rows, hidden, l->epsilon);
    const struct output of_norm[] = {{l->qkv, 0, qkv}, {l->up, 0, activated}};
    multiply_all(normed, hidden, of_norm, l->mlp_norm[0] ? 1 : 2, s->rows);
    peregrine_rotary_kv_write(qkv, qkv_width, cos, sin, s->slots, pages, s->rows, l->num_heads, l->num_kv_heads,
                              l->head_dim);
    peregrine_attention(qkv, qkv_width, pages, s->block_tables, s->max_blocks, block_size, s->query_starts,
                        s->context_lengths, s->num_sequences, l->num_kv_heads, l->num_heads / l->num_kv_heads,
                        l->head_dim, l->slopes, attended, heads);
    peregrine_linear(attended, heads, l->dense, has_residual ? x : 0, sum, s->rows);
    if (l->mlp_norm[0]) {
        peregrine_layer_norm(x, l->mlp_norm[0], l->mlp_norm[1], normed, s->rows, hidden, l->epsilon);
        peregrine_linear(normed, hidden, l->up, 0, activated, s->rows);
    }
    peregrine_linear(activated, ffn, l->down, sum, out, s->rows);
}
