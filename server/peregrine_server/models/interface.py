"""The door between a model family and the rest: the protocols that a family implements and is given.

Imports no torch: the router reads configurations through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from peregrine_server.protocol import CacheSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from peregrine_kernels import Backend, PagedBatch
    from peregrine_server.distributed.tensor_parallel import TensorParallel
    from peregrine_server.models.formats.interface import WeightFormat
    from peregrine_server.models.loading.tensor_spec import TensorSpec
    from peregrine_server.models.loading.weights import Progress, TensorSource


class LinearWeights(NamedTuple):
    """Weights of a model's linear layers, by how often they are multiplied."""

    layers: int
    """With every token."""
    head: int
    """With every token after which one is sampled."""


class ModelConfig(Protocol):
    """A model's shape, as far as others than its family ask."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_positions(self) -> int:
        """The length in tokens that the model was trained for."""

    @property
    def linear_weights(self) -> LinearWeights:
        """Weights that tokens are multiplied with, of all ranks, by which metrics count operations."""

    def summary(self) -> str:
        """The shape in a few words, for the start-up lines."""


class Cache(Protocol):
    """The state of a model's sequences between steps, on this rank."""

    def copy_blocks(self, sources: Tensor, destinations: Tensor) -> None:
        """Copies blocks sources int64[N] to destinations int64[N]. All are read before any is written."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterRows:
    """The adapter that each token of a step is computed with."""

    indices: Tensor
    """int64[T]: -1 is the model without an adapter."""


@dataclass(frozen=True, slots=True, eq=False)
class ForwardContext:
    """The step that a forward pass computes, besides its token ids."""

    batch: PagedBatch
    cache: Any
    """The `Cache` that this model allocated."""
    adapters: AdapterRows | None = None
    """None: no token has an adapter."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layout:
    """How a model is stored on its devices, as far as that decides its bytes."""

    num_ranks: int
    dtype: str
    """ "bfloat16", ..."""
    format: WeightFormat
    has_8_bit_kv: bool = False
    packs_weights: bool = False
    """Whether linears are packed for the device, as on a CPU: a head is then no view of the embedding table."""
    concatenates: bool = True
    """Whether linears whose outputs are summed are one, as on a GPU."""
    offload_bytes: int = 0
    """Bytes of weights on each rank that are to stay in the host's memory: --cpu-offload-gb."""


class Footprint(NamedTuple):
    """Bytes that a model takes on one rank: every rank takes the same."""

    weight_bytes: int
    unread_bytes: int
    """Bytes of the weights that a step looks rows up in, and does not read whole."""
    cache: CacheSpec
    activation_bytes_per_token: int
    """The peak of a step beyond the weights, for each of its tokens."""
    scratch_bytes: int = 0
    """The peak of a step of any size besides, on a GPU: weights that are dequantized for a GEMM, or for few rows the
    sums of parts of the inputs, which take less."""
    host_bytes: int = 0
    """Bytes of weights that stay in the host's memory, beyond `weight_bytes`: every step copies them to the device."""
    buffer_bytes: int = 0
    """The part of `weight_bytes` that they are copied to."""

    @property
    def read_bytes(self) -> int:
        """Bytes of weights that a step reads from the device's memory."""
        return self.weight_bytes - self.unread_bytes - self.buffer_bytes + self.host_bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModelContext:
    """The rank, device and formats that a model is loaded for."""

    parallel: TensorParallel
    backend: Backend
    format: WeightFormat
    device: torch.device
    dtype: torch.dtype
    kv_dtype: torch.dtype | None = None
    """The 8-bit type of the KV cache; None: `dtype`."""
    offload_bytes: int = 0
    """Bytes of weights that are to stay in the host's memory."""

    @property
    def dtype_name(self) -> str:
        """ "bfloat16", ..."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def layout(self) -> Layout:
        return Layout(
            num_ranks=self.parallel.size,
            dtype=self.dtype_name,
            format=self.format,
            has_8_bit_kv=self.kv_dtype is not None,
            packs_weights=self.device.type == "cpu",
            concatenates=not self.backend.fuses_epilogues,
            offload_bytes=self.offload_bytes,
        )


class Model(Protocol):
    """One rank's share of a model: weights, no state. Every rank calls the same methods in the same order."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def context(self) -> ModelContext: ...

    @property
    def cache_spec(self) -> CacheSpec:
        """The size of a sequence's state on this rank, and what the scheduler may do with it."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of this rank's weights."""

    def forward(self, token_ids: Tensor, ctx: ForwardContext) -> Tensor:
        """token_ids int64[T] -> hidden states [T, H], alike on every rank. Writes the tokens into `ctx.cache`."""

    def logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """hidden [T, H] -> float32[S, V] of rows int64[S], or of all; alike on every rank."""

    def next_logits(self, token_ids: Tensor, ctx: ForwardContext, rows: Tensor | None = None) -> Tensor:
        """`logits` of what `forward` gives: of rows int64[S], or of all."""

    def allocate_cache(self, num_blocks: int, block_size: int, num_slots: int) -> Cache:
        """The cache for num_blocks * block_size tokens and the state of num_slots sequences."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceCheckpoint:
    """A checkpoint of floating-point weights, to be written in another format."""

    weights: TensorSource
    dtype: str
    """The type that it is read in: the one that it was published in."""
    tensors: Callable[[WeightFormat], Mapping[str, TensorSpec]]
    """The tensors of the same model in a format, in the order in which they are read."""
    file_name: Callable[[str], str]
    """The name that files have of a tensor."""


class Family(Protocol):
    """A kind of model. Its module imports no torch until `load` is called."""

    def config(self, hf: Mapping[str, Any]) -> ModelConfig:
        """Reads config.json's content. Raises ConfigError, UnsupportedModel."""

    @property
    def published(self) -> Mapping[str, Mapping[str, Any]]:
        """Names of the hub -> config.json of the models that this family knows without a download."""

    def footprint(self, config: Any, layout: Layout) -> Footprint:
        """The bytes of a model whose `config` is this family's."""

    def open(self, path: Path, config: Any) -> AbstractContextManager[SourceCheckpoint]:
        """Opens the checkpoint of floating-point weights in `path`, each accounted for. Raises CheckpointError."""

    def load(self, path: Path, config: Any, context: ModelContext, progress: Progress | None) -> Model:
        """Reads this rank's share of the checkpoint in `path`; `config` is this family's. Raises CheckpointError."""
