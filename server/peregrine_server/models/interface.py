"""The door between a model family and the rest: the protocols that a family implements and is given.

Imports no torch: the router reads configurations through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from peregrine_server.protocol import CacheSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from peregrine_kernels import Backend, PagedBatch
    from peregrine_server.distributed.tensor_parallel import TensorParallel
    from peregrine_server.models.formats.interface import WeightFormat
    from peregrine_server.models.loading.weights import Progress


class ModelConfig(Protocol):
    """A model's shape, as far as others than its family ask."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_positions(self) -> int:
        """The length in tokens that the model was trained for."""

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
class ModelContext:
    """The rank, device and formats that a model is loaded for."""

    parallel: TensorParallel
    backend: Backend
    format: WeightFormat
    device: torch.device
    dtype: torch.dtype
    kv_dtype: torch.dtype | None = None
    """The 8-bit type of the KV cache; None: `dtype`."""

    @property
    def dtype_name(self) -> str:
        """ "bfloat16", ..."""
        return str(self.dtype).removeprefix("torch.")


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


class Family(Protocol):
    """A kind of model. Its module imports no torch until `load` is called."""

    def config(self, hf: Mapping[str, Any]) -> ModelConfig:
        """Reads config.json's content. Raises ConfigError, UnsupportedModel."""

    def weight_bytes(self, config: Any, num_ranks: int, dtype: str, format: WeightFormat) -> int:
        """Bytes of one rank's weights in `dtype` ("bfloat16", ...), its linears in `format`."""

    def load(self, path: Path, config: Any, context: ModelContext, progress: Progress | None) -> Model:
        """Reads this rank's share of the checkpoint in `path`; `config` is this family's. Raises CheckpointError."""
