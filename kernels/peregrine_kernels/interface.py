"""The tensor operations of a model, behind one interface with one implementation a device.

T tokens, Hq query heads, Hkv KV heads (Hq a multiple of Hkv; query heads of a KV head are adjacent), D head dim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from peregrine_kernels.kv_cache import PagedBatch
from peregrine_kernels.weights import Weight

Rotary = tuple[Tensor, Tensor]
"""cos and sin of each token's position, [T, 1, D] each, in the model's dtype, halves repeated (rotate-half form)."""

Affine = tuple[Tensor, Tensor]
"""weight and bias of a LayerNorm, [H] each."""

Sample = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
"""logits float32[S, V], parameters float64[4, S] and whether log-probabilities are asked for -> token ids int64[S], and
log-probabilities float32[S] among the tokens that are kept, or None.

The parameters' rows: temperature; top-k, V or more being off; top-p, 1 being off; and a number in [0, 1) by which the
distribution function is inverted, or a negative one for the argmax.
"""


class Linear(Protocol):
    """A weight, packed once for its device."""

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [T, in], contiguous -> activation(x @ weight.T + bias) + residual [T, out]; all but the product optional.

        The bias is added after rounding, as transformers does; activation and residual may be applied before.
        """


@runtime_checkable
class LinearInto(Linear, Protocol):
    """A linear that writes where it is told to, of a backend whose GEMMs have no epilogues."""

    def into(self, x: Tensor, out: Tensor) -> None:
        """The same to out [T, out], whose rows may be strided."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerParts:
    """The parts of one rank's parallel-attention layer."""

    attention_norm: Affine
    mlp_norm: Affine | None
    """None where the MLP reads what attention reads."""
    epsilon: float
    qkv: Linear
    up: Linear
    dense: Linear
    down: Linear
    num_heads: int
    num_kv_heads: int
    alibi_slopes: Tensor | None
    """As `Backend.attention` takes them."""

    @property
    def head_dim(self) -> int:
        return self.qkv.out_features // (self.num_heads + 2 * self.num_kv_heads)


@dataclass(frozen=True, slots=True, eq=False)
class ModelParts:
    """The parts of a model of such layers that one rank holds whole."""

    table: Tensor
    """Token embeddings [V, H]."""
    inverse_frequencies: Tensor | None
    """float32[D / 2], of rotary positions; None with ALiBi."""
    layers: Sequence[LayerParts]
    norm: Affine
    """The last LayerNorm."""
    epsilon: float
    head: Linear


class FusedLayer(Protocol):
    """A whole layer as one operation."""

    def __call__(
        self, x: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, has_residual: bool
    ) -> Tensor:
        """x [T, H] -> [T, H]: dense(attention) + down(up), and x if `has_residual`."""


class FusedModel(Protocol):
    """A whole model as one operation."""

    def __call__(self, token_ids: Tensor, batch: PagedBatch, pages: tuple[Tensor, ...]) -> Tensor:
        """token_ids int64[T] -> [T, H] after the last LayerNorm. `pages` are those of each layer."""

    def logits(self, token_ids: Tensor, batch: PagedBatch, pages: tuple[Tensor, ...], rows: Tensor | None) -> Tensor:
        """token_ids int64[T] -> float32[S, V]: the head, whose outputs are rounded, on rows int64[S], or on all."""


@runtime_checkable
class FusedOps(Protocol):
    """Optional operations of a backend: whole layers and whole models at once."""

    def fused_layer(self, parts: LayerParts) -> FusedLayer | None:
        """The layer as one operation; None if one of its parts has no such kernel."""

    def fused_model(self, parts: ModelParts) -> FusedModel | None:
        """The model as one operation; None if one of its parts has no such kernel."""


class Backend(Protocol):
    """The operations that a model needs of a device. Backends inherit the defaults that stand here."""

    fuses_epilogues: bool = False
    """Whether linears apply their activation and residual within the GEMM, where they cost nothing. GEMMs are then
    better left apart (dense, whose result is the residual of down) than concatenated."""
    largest_int8: int = 0
    """The largest integer of an `Int8Weight` that the kernels multiply without overflow; 0: no such kernels."""
    int8_row_bytes: int = 4
    """Bytes beside the integers of a row of a packed `Int8Weight`: its scale, and what else the kernels keep."""
    has_fp8: bool = False
    """Whether the kernels multiply a `Float8Weight`."""
    int4_group: int = 0
    """The kernels multiply an `Int4Weight` whose groups are a multiple of this size; 0: no such kernels."""
    int4_zero_bytes: int = 4
    """Bytes of a group's zero point in a packed `Int4Weight` whose zero points are integers."""
    has_codebooks: bool = False
    """Whether the kernels multiply a `CodebookWeight`."""
    dequantizes: bool = False
    """Whether weights that have no such kernels are to be dequantized as they are loaded; otherwise they are
    refused."""
    sample: Sample | None = None
    """Temperature, top-k, top-p, the draw and its log-probability as one operation, if there is one."""

    def kernels(self, dtype: torch.dtype) -> str:
        """The kernels that compute a model of `dtype`, for the operator: "AMX", "torch", "Triton sm_90", ..."""

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        """Packs a weight; the caller drops its reference to it afterwards. `activation` is named as in transformers'
        configs ("gelu" is erf). Raises UnsupportedWeight."""

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """x [T, H] -> [T, H]."""

    def add_layer_norms(
        self, x: Tensor, delta: Tensor, bias: Tensor | None, affines: Sequence[Affine], eps: float
    ) -> tuple[Tensor, list[Tensor]]:
        """x, delta [T, H], bias [H] -> x + (delta + bias), and a LayerNorm of it for each of one or two affines.

        delta may be overwritten; x is not.
        """

    def rotary_kv_write(
        self, qkv: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, num_heads: int
    ) -> None:
        """Rotates q of qkv [T, (Hq + 2 Hkv) * D] (all q, all k, all v; row stride free) in place, unless `rotary` is
        None (ALiBi), and writes k, rotated, and v to one layer's pages [num_blocks, block_size, 2, Hkv, D].

        The contents of k in qkv are undefined afterwards."""

    def attention(
        self,
        q: Tensor,
        batch: PagedBatch,
        pages: Tensor,
        alibi_slopes: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Causal attention of q [T, Hq * D] over each sequence's pages -> [T, Hq * D]: `out`, if there is one.

        Rows of q and out may be strided. Scores are (q.k + alibi) / sqrt(D); `alibi_slopes` float32[Hq], of values that
        bfloat16 has, gives alibi = slope * position of the key, rounded to bfloat16, as transformers builds it.
        """

    def argmax(self, logits: Tensor) -> Tensor:
        """logits float32[S, V] -> int64[S]: the lowest id among each row's largest."""
        return logits.argmax(-1)

    def gemm_min_rows(self, dtype: torch.dtype) -> int:
        """The number of rows below which a linear takes longer than with that many: the model pads its inputs."""
        return 1

    def overlap(self, priority: Callable[[], object], background: Callable[[], object]) -> None:
        """Runs both, in any order or at once; neither touches what the other writes. `priority` is many small
        operations."""
        priority()
        background()
