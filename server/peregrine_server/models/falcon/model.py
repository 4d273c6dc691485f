"""Falcon on a paged KV cache, one rank of it: the model and its kinds of blocks. `load.py` makes them.

T tokens in a step, R rows of its linears (T, or a few more where the backend multiplies those faster), H hidden size;
a rank has Hq query heads and Hkv KV heads of dimension D, and F of the MLP's width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels import Backend, FusedLayer, FusedModel, KVCache, LayerParts, Linear, PagedBatch, Rotary
from peregrine_kernels.dense_linear import PlainLinear
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon import footprint as memory
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.layers import Embedding, Head, LayerNorm, RotaryPositions
from peregrine_server.models.falcon.partition import Partition


@dataclass(frozen=True, slots=True, eq=False)
class Rank:
    """What the parts of one rank's model share."""

    config: FalconConfig
    part: Partition
    parallel: TensorParallel
    backend: Backend
    device: torch.device
    dtype: torch.dtype
    alibi_slopes: Tensor | None
    """float32[Hq]"""
    kv_dtype: torch.dtype | None = None
    """Of the pages, if not `dtype`."""

    @property
    def concatenates(self) -> bool:
        """Whether GEMMs of one sum are one GEMM; not where GEMMs with epilogues are faster apart."""
        return self.config.is_parallel and not self.backend.fuses_epilogues

    @property
    def gemm_min_rows(self) -> int:
        return self.backend.gemm_min_rows(self.dtype)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True, eq=False)
class Falcon:
    """One rank's share of a model. It holds weights and no state; `load_falcon` makes it."""

    rank: Rank
    embedding: Embedding
    rotary: RotaryPositions | None
    blocks: tuple["Block", ...]
    final_norm: LayerNorm
    head: Head
    fused: FusedModel | None = None
    """All of it as one operation, where the backend has that."""

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, batch: PagedBatch, kv: KVCache) -> Tensor:
        """token_ids int64[T] -> hidden states after the last LayerNorm [T, H], alike on every rank.

        Writes the tokens' keys and values into `kv`. Every rank calls it with the same tokens and its own cache.
        """
        if self.fused is not None:
            return self.fused(token_ids, batch, kv.layers)
        stream = Stream(_pad(self.embedding(token_ids), self.rank.gemm_min_rows))
        rotary = self.rotary(batch.positions) if self.rotary else None
        now = Pass.of(self.rank, batch, rotary)
        for block, pages in zip(self.blocks, kv.layers, strict=True):
            stream = block(stream, now, pages)
        return stream.normed(self.final_norm)[1][: len(token_ids)]

    @torch.inference_mode()
    def logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """hidden [T, H] -> float32[S, vocabulary] of rows int64[S], or of all. Alike on every rank; all call it."""
        hidden = hidden if rows is None else hidden[rows]
        return self.head(_pad(hidden, self.rank.gemm_min_rows))[: len(hidden)]

    @torch.inference_mode()
    def next_logits(self, token_ids: Tensor, batch: PagedBatch, kv: KVCache, rows: Tensor | None = None) -> Tensor:
        """`logits` of what `forward` gives: of rows int64[S], or of all."""
        if self.fused is not None:
            return self.fused.logits(token_ids, batch, kv.layers, rows)
        return self.logits(self.forward(token_ids, batch, kv), rows)

    def allocate_kv_cache(self, num_blocks: int, block_size: int) -> KVCache:
        """This rank's pages for num_blocks * block_size tokens."""
        config, rank = self.config, self.rank
        shape = config.num_layers, num_blocks, block_size, rank.part.num_kv_heads, config.head_dim
        return KVCache.allocate(*shape, rank.kv_dtype or rank.dtype, rank.device)

    @property
    def config(self) -> FalconConfig:
        return self.rank.config

    @property
    def device(self) -> torch.device:
        return self.rank.device

    @property
    def dtype(self) -> torch.dtype:
        return self.rank.dtype

    @property
    def kv_bytes_per_token(self) -> int:
        """On this rank."""
        rank = self.rank
        return memory.kv_bytes_per_token(self.config, rank.parallel.size, rank.dtype_name, rank.kv_dtype is not None)

    @property
    def weight_bytes(self) -> int:
        """On this rank."""
        rank, is_cpu = self.rank, self.rank.device.type == "cpu"
        return memory.weight_bytes(
            self.config, rank.parallel.size, rank.dtype_name, has_packed_head=is_cpu, is_int8=rank.backend.quantizes
        )


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """The residual stream between blocks. What a block adds to it is added by the next LayerNorm, in the same pass."""

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
class Pass:
    """What one forward pass computes or allocates once for all its blocks."""

    rank: Rank
    batch: PagedBatch
    rotary: Rotary | None
    mixed: Tensor
    """[R, Hq * D + F]: what an output GEMM that is dense and down at once reads. Elsewhere [R, Hq * D]."""

    @staticmethod
    def of(rank: Rank, batch: PagedBatch, rotary: Rotary | None) -> "Pass":
        """`batch` and `rotary` are those of the step."""
        width = rank.part.dense.size + (rank.part.ffn.size if rank.concatenates else 0)
        rows = max(len(batch.positions), rank.gemm_min_rows)
        mixed = torch.empty((rows, width), dtype=rank.dtype, device=rank.device)
        mixed[len(batch.positions) :] = 0
        return Pass(rank, batch, rotary, mixed)

    def attend(self, qkv: Tensor, pages: Tensor) -> Tensor:
        """qkv [R, (Hq + 2 Hkv) * D] is rotated in place and cached -> [R, Hq * D], in `mixed` or of its own."""
        backend, num_tokens, size = self.rank.backend, len(self.batch.positions), self.rank.part.dense.size
        qkv = qkv[:num_tokens]
        backend.rotary_kv_write(qkv, self.rotary, self.batch, pages, self.rank.part.num_heads)
        is_mixed = self.rank.concatenates or num_tokens < len(self.mixed)
        out = self.mixed[:num_tokens, :size] if is_mixed else None
        attended = backend.attention(qkv[:, :size], self.batch, pages, self.rank.alibi_slopes, out)
        return self.mixed[:, :size] if is_mixed else attended


@dataclass(frozen=True, slots=True, eq=False)
class ParallelBlock:
    """Attention and MLP side by side (all but rw): three GEMMs and one all-reduce.

    x ─┬─ attention_norm ─ qkv ─ rotary, cache, attention ─┬─ [dense | down] ─ all-reduce ─ + ─
       ├─ mlp_norm (or the same) ─ up: activation ─────────┘                                │
       └────────────────────────────────────────────────────────────────────────────────────┘

    The two branches are left apart up to `mixed`, so that a device can work on both at once.
    """

    rank: Rank
    attention_norm: LayerNorm
    mlp_norm: LayerNorm | None
    qkv: Linear
    up: PlainLinear
    dense_down: Linear
    bias: Tensor | None
    """[H], of dense and down together: added once, not by every rank."""

    def __call__(self, stream: Stream, now: Pass, pages: Tensor) -> Stream:
        x, *normed = stream.normed(self.attention_norm, *([self.mlp_norm] if self.mlp_norm else []))
        for_attention, for_mlp = normed[0], normed[-1]
        activated = now.mixed[:, self.rank.part.dense.size :]
        self.rank.backend.overlap(
            lambda: now.attend(self.qkv(for_attention), pages), lambda: self.up.into(for_mlp, activated)
        )
        out = self.dense_down(now.mixed)
        self.rank.parallel.all_reduce(out)
        return Stream(x, out, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class SplitBlock:
    """The same where the backend's GEMMs apply activation and sum themselves: four GEMMs, nothing else; where it has
    the whole layer as one operation, that.

    x ─┬─ attention_norm ─ qkv ─ rotary, cache, attention ─ dense ─┬─ down: + ─ all-reduce ─ + ─
       ├─ mlp_norm (or the same) ─ up: activation ─────────────────┘                         │
       └─────────────────────────────────────────────────────────────────────────────────────┘
    """

    rank: Rank
    attention_norm: LayerNorm
    mlp_norm: LayerNorm | None
    qkv: Linear
    up: Linear
    dense: Linear
    down: Linear
    bias: Tensor | None
    """[H], of dense and down together."""
    fused: FusedLayer | None = None

    @property
    def parts(self) -> LayerParts:
        """What the whole layer is made of."""
        part, mlp_norm = self.rank.part, self.mlp_norm.affine if self.mlp_norm else None
        return LayerParts(
            self.attention_norm.affine,
            mlp_norm,
            self.attention_norm.epsilon,
            *(self.qkv, self.up, self.dense, self.down),
            *(part.num_heads, part.num_kv_heads, self.rank.alibi_slopes),
        )

    def __call__(self, stream: Stream, now: Pass, pages: Tensor) -> Stream:
        x = stream.x  # nothing is ever left to be added: each layer's sum is whole
        # One rank's sum has the residual in it, so that no op of its own adds it.
        has_residual = self.rank.parallel.rank == 0
        if self.fused is not None:
            out = self.fused(x, now.rotary, now.batch, pages, has_residual)
        else:
            out = self.by_parts(x, now, pages, has_residual)
        self.rank.parallel.all_reduce(out)
        return Stream(out if self.bias is None else out.add_(self.bias))

    def by_parts(self, x: Tensor, now: Pass, pages: Tensor, has_residual: bool) -> Tensor:
        """The layer's sum on this rank [R, H]."""
        normed = self.attention_norm(x)
        attended = now.attend(self.qkv(normed), pages)
        activated = self.up(normed if self.mlp_norm is None else self.mlp_norm(x))
        return self.down(activated, residual=self.dense(attended, residual=x if has_residual else None))


@dataclass(frozen=True, slots=True, eq=False)
class SequentialBlock:
    """The MLP reads what attention made (rw): four GEMMs and two all-reduces.

    x ─┬─ attention_norm ─ qkv ─ cache, attention ─ dense ─ all-reduce ─ + ─ y
       └─────────────────────────────────────────────────────────────────┘
    y ─┬─ mlp_norm ─ up: activation ─ down ─ all-reduce ─ + ─
       └──────────────────────────────────────────────────┘
    """

    rank: Rank
    attention_norm: LayerNorm
    mlp_norm: LayerNorm
    qkv: Linear
    up: Linear
    dense: Linear
    down: Linear
    dense_bias: Tensor | None
    down_bias: Tensor | None

    def __call__(self, stream: Stream, now: Pass, pages: Tensor) -> Stream:
        x, normed = stream.normed(self.attention_norm)
        out = self.dense(now.attend(self.qkv(normed), pages))
        self.rank.parallel.all_reduce(out)
        x, normed = Stream(x, out, self.dense_bias).normed(self.mlp_norm)
        out = self.down(self.up(normed))
        self.rank.parallel.all_reduce(out)
        return Stream(x, out, self.down_bias)


Block = ParallelBlock | SplitBlock | SequentialBlock


def _pad(x: Tensor, gemm_min_rows: int) -> Tensor:
    """x [T, H] -> [R, H], R = max(T, gemm_min_rows); rows past T mean nothing and reach no other row."""
    return x if len(x) >= gemm_min_rows else F.pad(x, (0, 0, 0, gemm_min_rows - len(x)))
