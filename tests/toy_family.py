"""A model family in one file: a single linear layer, whose logits depend on the last token alone.

It keeps nothing of a sequence, so it can neither share prefixes nor fork nor speculate; one rank serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peregrine_server.models.formats.interface import DTYPE_BYTES
from peregrine_server.models.interface import (
    Footprint,
    ForwardContext,
    Layout,
    LinearWeights,
    ModelContext,
    SourceCheckpoint,
)
from peregrine_server.models.loading.config_reader import ConfigReader
from peregrine_server.protocol import CacheSpec

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import Linear
    from peregrine_server.models.loading.weights import Progress

NO_STATE = CacheSpec(0, can_share_prefixes=False, can_fork=False, can_speculate=False)


@dataclass(frozen=True)
class ToyConfig:
    vocab_size: int
    max_positions: int

    @property
    def linear_weights(self) -> LinearWeights:
        return LinearWeights(0, self.vocab_size**2)

    def summary(self) -> str:
        return f"one linear layer, vocabulary {self.vocab_size}"


class NoCache:
    def copy_blocks(self, sources: Tensor, destinations: Tensor) -> None:
        """There are none."""


@dataclass(frozen=True)
class ToyModel:
    context: ModelContext
    config: ToyConfig
    linear: Linear

    @property
    def cache_spec(self) -> CacheSpec:
        return NO_STATE

    @property
    def weight_bytes(self) -> int:
        return self.config.vocab_size**2 * DTYPE_BYTES[self.context.dtype_name]

    def forward(self, token_ids: Tensor, ctx: ForwardContext) -> Tensor:
        from torch.nn.functional import one_hot

        return one_hot(token_ids, self.config.vocab_size).to(self.context.dtype)

    def logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.linear(hidden if rows is None else hidden[rows]).float()

    def next_logits(self, token_ids: Tensor, ctx: ForwardContext, rows: Tensor | None = None) -> Tensor:
        return self.logits(self.forward(token_ids, ctx), rows)

    def allocate_cache(self, num_blocks: int, block_size: int, num_slots: int) -> NoCache:
        return NoCache()


class ToyFamily:
    def config(self, hf: Mapping[str, Any]) -> ToyConfig:
        read = ConfigReader(hf)
        return ToyConfig(read.size("vocab_size"), read.size("max_position_embeddings"))

    @property
    def published(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def footprint(self, config: ToyConfig, layout: Layout) -> Footprint:
        size = config.vocab_size
        weight_bytes = layout.format.num_bytes(size, size, layout.dtype)
        return Footprint(weight_bytes, 0, NO_STATE, 2 * size * DTYPE_BYTES[layout.dtype])

    def open(self, path: Path, config: ToyConfig) -> AbstractContextManager[SourceCheckpoint]:
        raise NotImplementedError("toys are not quantized")

    def load(self, path: Path, config: ToyConfig, context: ModelContext, progress: Progress | None) -> ToyModel:
        from peregrine_server.models.loading.slices import whole
        from peregrine_server.models.loading.weights import Weights

        size = config.vocab_size
        with Weights(path, context.device, context.dtype, progress) as weights:
            weights.check(context.format.expected("linear", size, size))
            weight = context.format.load(weights, (("linear", whole(size)),), axis=0)
        return ToyModel(context, config, context.backend.linear(weight))


FAMILY = ToyFamily()
