"""Falcon on a paged KV cache, one rank of it: the model and its kinds of blocks. `load.py` makes them.

T tokens in a step, R rows of its linears (T, or a few more where the backend multiplies those faster), H hidden size;
a rank has Hq query heads and Hkv KV heads of dimension D, and F of the MLP's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels import FusedLayer, FusedModel, KVCache, LayerParts, Linear, LinearInto, PagedBatch, Rotary
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import footprint
from peregrine_server.models.falcon.partition import Partition, partition
from peregrine_server.models.interface import ForwardContext, ModelContext
from peregrine_server.models.layers.embedding import Embedding, Head
from peregrine_server.models.layers.norm import LayerNorm
from peregrine_server.models.layers.positions import DynamicRotaryPositions, RotaryPositions, alibi_slopes
from peregrine_server.protocol import CacheSpec


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FalconContext(ModelContext):
    """The facts that the parts of one rank's Falcon share."""

    config: FalconConfig
    partition: Partition
    alibi_slopes: Tensor | None
    """float32[Hq]"""

    @staticmethod
    def of(context: ModelContext, config: FalconConfig) -> "FalconContext":
        """The context of this config's share on the rank of `context`."""
        part = partition(config, context.parallel.rank, context.parallel.size)
        slopes = alibi_slopes(config.num_heads, part.heads, context.device) if config.has_alibi else None
        given = {field.name: getattr(context, field.name) for field in fields(ModelContext)}
        return FalconContext(**given, config=config, partition=part, alibi_slopes=slopes)

    @property
    def concatenates(self) -> bool:
        """Whether GEMMs of one sum are one GEMM; not where GEMMs with epilogues are faster apart."""
        return self.config.is_parallel and not self.backend.fuses_epilogues

    @property
    def gemm_min_rows(self) -> int:
        return self.backend.gemm_min_rows(self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Falcon:
    """One rank's share of a model; `load_falcon` makes it. See `Model`."""

    context: FalconContext
    embedding: Embedding
    rotary: RotaryPositions | DynamicRotaryPositions | None
    blocks: Sequence["Block"]
    """Each is asked for when it runs: `OffloadedLayers` have its weights there by then."""
    final_norm: LayerNorm
    head: Head
    fused: FusedModel | None = None
    """All of it as one operation, where the backend has that; for steps without adapters."""

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, ctx: ForwardContext) -> Tensor:
        """token_ids int64[T] -> hidden states after the last LayerNorm [T, H], alike on every rank.

        Writes the tokens' keys and values into `ctx.cache`. Every rank calls it with the same tokens and its own cache.
        """
        batch, kv = ctx.batch, ctx.cache
        if self.fused is not None and ctx.adapters is None:
            return self.fused(token_ids, batch, kv.layers)
        residual = Residual(_pad(self.embedding(token_ids), self.context.gemm_min_rows))
        shared = StepTensors.of(self.context, ctx, self.rotary(batch.positions) if self.rotary else None)
        for block, pages in zip(self.blocks, kv.layers, strict=True):
            residual = block(residual, shared, pages)
        return residual.normed(self.final_norm)[1][: len(token_ids)]

    @torch.inference_mode()
    def logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """hidden [T, H] -> float32[S, vocabulary] of rows int64[S], or of all. Alike on every rank; all call it."""
        hidden = hidden if rows is None else hidden[rows]
        return self.head(_pad(hidden, self.context.gemm_min_rows))[: len(hidden)]

    @torch.inference_mode()
    def next_logits(self, token_ids: Tensor, ctx: ForwardContext, rows: Tensor | None = None) -> Tensor:
        """`logits` of what `forward` gives: of rows int64[S], or of all."""
        if self.fused is not None and ctx.adapters is None:
            return self.fused.logits(token_ids, ctx.batch, ctx.cache.layers, rows)
        return self.logits(self.forward(token_ids, ctx), rows)

    def allocate_cache(self, num_blocks: int, block_size: int, num_slots: int = 0) -> KVCache:
        """This rank's pages for num_blocks * block_size tokens; a Falcon keeps nothing else of a sequence."""
        config, context = self.config, self.context
        shape = config.num_layers, num_blocks, block_size, context.partition.num_kv_heads, config.head_dim
        return KVCache.allocate(*shape, context.kv_dtype or context.dtype, context.device)

    @property
    def config(self) -> FalconConfig:
        return self.context.config

    @property
    def cache_spec(self) -> CacheSpec:
        return footprint(self.config, self.context.layout).cache

    @property
    def weight_bytes(self) -> int:
        """Bytes on this rank."""
        return footprint(self.config, self.context.layout).weight_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """The residual between blocks. A block's output is added to it by the next LayerNorm, in the same pass."""

    x: Tensor
    """[R, H]"""
    delta: Tensor | None = None
    """[R, H], yet to be added; nobody else holds it."""
    bias: Tensor | None = None
    """[H], added to delta first."""

    def normed(self, norm: LayerNorm, *second: LayerNorm) -> tuple[Tensor, ...]:
        """The sum, and one or two LayerNorms of it: [R, H] each."""
        norms = (norm, *second)
        if self.delta is None:
            return self.x, *(each(self.x) for each in norms)
        affines = [(each.weight, each.bias) for each in norms]
        x, outputs = norm.backend.add_layer_norms(self.x, self.delta, self.bias, affines, norm.epsilon)
        return x, *outputs


@dataclass(frozen=True, slots=True, eq=False)
class StepTensors:
    """The tensors that one forward pass computes or allocates once for all its blocks."""

    context: FalconContext
    batch: PagedBatch
    rotary: Rotary | None
    mixed: Tensor
    """[R, Hq * D + F]: the input of an output GEMM that is dense and down at once. Elsewhere [R, Hq * D]."""
    has_adapters: bool
    """Whether a token has an adapter: then no layer is one operation."""

    @staticmethod
    def of(context: FalconContext, ctx: ForwardContext, rotary: Rotary | None) -> "StepTensors":
        """The tensors of a step of T tokens; `rotary` is that of their positions."""
        part, num_tokens = context.partition, len(ctx.batch.positions)
        width = part.dense.size + (part.ffn.size if context.concatenates else 0)
        rows = max(num_tokens, context.gemm_min_rows)
        mixed = torch.empty((rows, width), dtype=context.dtype, device=context.device)
        mixed[num_tokens:] = 0
        return StepTensors(context, ctx.batch, rotary, mixed, ctx.adapters is not None)

    def attend(self, qkv: Tensor, pages: Tensor) -> Tensor:
        """qkv [R, (Hq + 2 Hkv) * D] is rotated in place and cached -> [R, Hq * D], in `mixed` or of its own."""
        context = self.context
        backend, num_tokens, size = context.backend, len(self.batch.positions), context.partition.dense.size
        qkv = qkv[:num_tokens]
        backend.rotary_kv_write(qkv, self.rotary, self.batch, pages, context.partition.num_heads)
        is_mixed = context.concatenates or num_tokens < len(self.mixed)
        out = self.mixed[:num_tokens, :size] if is_mixed else None
        attended = backend.attention(qkv[:, :size], self.batch, pages, context.alibi_slopes, out)
        return self.mixed[:, :size] if is_mixed else attended


@dataclass(frozen=True, slots=True, eq=False)
class ParallelBlock:
    """Attention and MLP side by side (all but rw): three GEMMs and one all-reduce.

    x ─┬─ attention_norm ─ qkv ─ rotary, cache, attention ─┬─ [dense | down] ─ all-reduce ─ + ─
       ├─ mlp_norm (or the same) ─ up: activation ─────────┘                                │
       └────────────────────────────────────────────────────────────────────────────────────┘

    The two branches are left apart up to `mixed`, so that a device can work on both at once.
    """

    context: FalconContext
    attention_norm: LayerNorm
    mlp_norm: LayerNorm | None
    qkv: Linear
    up: LinearInto
    dense_down: Linear
    bias: Tensor | None
    """[H]: the sum of dense's and down's, added once, not by every rank."""

    def __call__(self, residual: Residual, shared: StepTensors, pages: Tensor) -> Residual:
        x, *normed = residual.normed(self.attention_norm, *([self.mlp_norm] if self.mlp_norm else []))
        for_attention, for_mlp = normed[0], normed[-1]
        activated = shared.mixed[:, self.context.partition.dense.size :]
        self.context.backend.overlap(
            lambda: shared.attend(self.qkv(for_attention), pages), lambda: self.up.into(for_mlp, activated)
        )
        out = self.dense_down(shared.mixed)
        self.context.parallel.all_reduce(out)
        return Residual(x, out, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class SplitBlock:
    """The parallel block where the backend's GEMMs apply activation and sum themselves: four GEMMs, nothing else; or
    the whole layer as one operation, if the backend has it and no token has an adapter.

    x ─┬─ attention_norm ─ qkv ─ rotary, cache, attention ─ dense ─┬─ down: + ─ all-reduce ─ + ─
       ├─ mlp_norm (or the same) ─ up: activation ─────────────────┘                         │
       └─────────────────────────────────────────────────────────────────────────────────────┘
    """

    context: FalconContext
    attention_norm: LayerNorm
    mlp_norm: LayerNorm | None
    qkv: Linear
    up: Linear
    dense: Linear
    down: Linear
    bias: Tensor | None
    """[H]: the sum of dense's and down's."""
    fused: FusedLayer | None = None

    @property
    def parts(self) -> LayerParts:
        """The parts of the whole layer."""
        part, mlp_norm = self.context.partition, self.mlp_norm.affine if self.mlp_norm else None
        return LayerParts(
            self.attention_norm.affine,
            mlp_norm,
            self.attention_norm.epsilon,
            *(self.qkv, self.up, self.dense, self.down),
            *(part.num_heads, part.num_kv_heads, self.context.alibi_slopes),
        )

    def __call__(self, residual: Residual, shared: StepTensors, pages: Tensor) -> Residual:
        x = residual.x  # There is no delta: each layer's sum is whole.
        # One rank's sum has the residual in it, so that no op of its own adds it.
        has_residual = self.context.parallel.rank == 0
        if self.fused is not None and not shared.has_adapters:
            out = self.fused(x, shared.rotary, shared.batch, pages, has_residual)
        else:
            out = self.by_parts(x, shared, pages, has_residual)
        self.context.parallel.all_reduce(out)
        return Residual(out if self.bias is None else out.add_(self.bias))

    def by_parts(self, x: Tensor, shared: StepTensors, pages: Tensor, has_residual: bool) -> Tensor:
        """The layer's sum on this rank [R, H]."""
        normed = self.attention_norm(x)
        attended = shared.attend(self.qkv(normed), pages)
        activated = self.up(normed if self.mlp_norm is None else self.mlp_norm(x))
        return self.down(activated, residual=self.dense(attended, residual=x if has_residual else None))


@dataclass(frozen=True, slots=True, eq=False)
class SequentialBlock:
    """The MLP reads attention's result (rw): four GEMMs and two all-reduces.

    x ─┬─ attention_norm ─ qkv ─ cache, attention ─ dense ─ all-reduce ─ + ─ y
       └─────────────────────────────────────────────────────────────────┘
    y ─┬─ mlp_norm ─ up: activation ─ down ─ all-reduce ─ + ─
       └──────────────────────────────────────────────────┘
    """

    context: FalconContext
    attention_norm: LayerNorm
    mlp_norm: LayerNorm
    qkv: Linear
    up: Linear
    dense: Linear
    down: Linear
    dense_bias: Tensor | None
    down_bias: Tensor | None

    def __call__(self, residual: Residual, shared: StepTensors, pages: Tensor) -> Residual:
        x, normed = residual.normed(self.attention_norm)
        out = self.dense(shared.attend(self.qkv(normed), pages))
        self.context.parallel.all_reduce(out)
        x, normed = Residual(x, out, self.dense_bias).normed(self.mlp_norm)
        out = self.down(self.up(normed))
        self.context.parallel.all_reduce(out)
        return Residual(x, out, self.down_bias)


Block = ParallelBlock | SplitBlock | SequentialBlock


def _pad(x: Tensor, gemm_min_rows: int) -> Tensor:
    """x [T, H] -> [R, H], R = max(T, gemm_min_rows); rows past T mean nothing and reach no other row."""
    return x if len(x) >= gemm_min_rows else F.pad(x, (0, 0, 0, gemm_min_rows - len(x)))
