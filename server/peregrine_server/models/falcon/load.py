"""A Falcon from a checkpoint: one rank's share of each weight, packed for its device."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from peregrine_kernels import FusedModel, FusedOps, Linear, LinearInto, ModelParts
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import checkpoint_bytes, layer_sizes
from peregrine_server.models.falcon.gguf import FalconGguf
from peregrine_server.models.falcon.model import (
    Block,
    Falcon,
    FalconContext,
    ParallelBlock,
    SequentialBlock,
    SplitBlock,
)
from peregrine_server.models.falcon.tensors import (
    EMBEDDING,
    HEAD,
    IGNORED,
    LINEAR,
    PREFIX,
    confirm_layer_norms,
    expected_tensors,
    file_name,
    layer_norms,
)
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.interface import WeightFormat
from peregrine_server.models.interface import ModelContext, SourceCheckpoint
from peregrine_server.models.layers.copies import copies_to
from peregrine_server.models.layers.embedding import Embedding, Head
from peregrine_server.models.layers.norm import LayerNorm
from peregrine_server.models.layers.offloaded import OffloadedLayers
from peregrine_server.models.layers.placement import offloaded_layers
from peregrine_server.models.layers.positions import DynamicRotaryPositions, RotaryPositions
from peregrine_server.models.loading.slices import Slice, whole
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import Progress, TensorSource, Weights

SHOWN_NAMES = 3
"""Unexpected tensors that the warning names."""
log = logging.getLogger(__name__)


def load_falcon(path: Path, config: FalconConfig, context: ModelContext, progress: Progress | None = None) -> Falcon:
    """Loads this rank's share of the checkpoint in directory `path` for `context`.

    The host needs room for the rank's weights, and for one tensor or `READ_AHEAD_BYTES`. Raises CheckpointError.
    """
    with Weights(path, context.device, context.dtype, progress, prefix=PREFIX, gguf=FalconGguf(config)) as weights:
        config, unexpected = check_weights(weights, config, context.format, context.parallel.size)
        if unexpected and context.parallel.rank == 0:
            log.warning("%s: unexpected tensors are left out: %s", path, _some(unexpected))
        return Loader(FalconContext.of(context, config), weights).falcon()


@contextmanager
def open_falcon(path: Path, config: FalconConfig) -> Iterator[SourceCheckpoint]:
    """The checkpoint in directory `path`, to be written in another format. Raises CheckpointError."""
    dtype = getattr(torch, config.dtype)
    with Weights(path, torch.device("cpu"), dtype, prefix=PREFIX, gguf=FalconGguf(config)) as weights:
        config, _ = check_weights(weights, config, DenseFormat())
        yield SourceCheckpoint(weights, config.dtype, partial(expected_tensors, config), file_name)


def check_weights(
    weights: Weights, config: FalconConfig, format: WeightFormat, num_ranks: int = 1
) -> tuple[FalconConfig, list[str]]:
    """Accounts for every tensor. Returns the config with the LayerNorms and the head that the checkpoint has, and names
    of tensors that are no Falcon's, such as another task's head.

    Raises CheckpointError.
    """
    config = _confirm_head(confirm_layer_norms(config, weights.names), weights)
    kinds = str(weights.dtype).removeprefix("torch."), format
    unexpected = weights.check(
        expected_tensors(config, format),
        share=checkpoint_bytes(config, num_ranks, *kinds) / checkpoint_bytes(config, 1, *kinds),
        ignored=IGNORED,
        aliases={EMBEDDING: HEAD} if config.is_tied else {},
    )
    for name in unexpected:
        if (linear := LINEAR.match(name)) and format.refuses(name[linear.end() :]):
            raise CheckpointError(f"tensor {name!r:.200} is of a layout that is not supported; give other weights")
    return config, unexpected


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(f"{name!r:.100}" for name in names[:SHOWN_NAMES])
    return shown + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")


def _confirm_head(config: FalconConfig, weights: Weights) -> FalconConfig:
    """The config with a head of its own where the checkpoint has one unlike the table, as in transformers."""
    if config.is_tied and {EMBEDDING, HEAD} <= weights.names and not weights.are_equal(EMBEDDING, HEAD):
        return replace(config, is_tied=False)
    if not config.is_tied and EMBEDDING in weights.names and HEAD not in weights.names:
        # transformers goes on with a random head.
        raise CheckpointError(
            f"the checkpoint lacks tensor {HEAD!r}; if the model has no head of its own, "
            "set tie_word_embeddings to true in config.json"
        )
    return config


def stays(block: Block) -> object:
    """The parts of a block that are not its alone, and the bias that the next block's first norm adds."""
    return block.context, block.down_bias if isinstance(block, SequentialBlock) else block.bias


@dataclass(frozen=True, slots=True)
class Loader:
    """Assembles a model from weights, in the order in which a checkpoint holds them."""

    context: FalconContext
    weights: TensorSource

    def falcon(self) -> Falcon:
        context, config, vocab = self.context, self.context.config, self.context.partition.vocab
        table = self.weights.rows((EMBEDDING, vocab))
        embedding = Embedding(table, context.partition.vocab_start, context.parallel)
        blocks = self.blocks()
        final_norm = self.norm("ln_f")
        # A tied head is the table itself; where linears are packed, it is packed beside the table.
        weight = context.format.from_dense(table if config.is_tied else self.weights.rows((HEAD, vocab)))
        head = Head(context.backend.linear(weight), config.vocab_size, context.parallel)
        falcon = Falcon(context, embedding, self.rotary(), blocks, final_norm, head)
        return replace(falcon, fused=self.fused(falcon))

    def blocks(self) -> Sequence[Block]:
        """All blocks, of which some may have their weights in the host's memory."""
        names = [f"h.{layer}." for layer in range(self.context.config.num_layers)]
        if offloaded := self.offloaded():
            # One by one: the device has no room for those that are to leave it.
            return OffloadedLayers(map(self.block, names), offloaded, stays, copies_to(self.context.device))
        return tuple(self.weights.load_each(self.block, names))

    def offloaded(self) -> tuple[int, ...]:
        """The layers whose weights stay in the host's memory."""
        context = self.context
        if not context.offload_bytes:
            return ()
        return offloaded_layers(layer_sizes(context.config, context.layout), context.offload_bytes)

    def rotary(self) -> RotaryPositions | DynamicRotaryPositions | None:
        context, config = self.context, self.context.config
        if config.has_alibi:
            return None
        if config.is_rope_dynamic:
            scaling = config.head_dim, config.rope_theta, config.rope_factor, config.max_positions
            return DynamicRotaryPositions.of(*scaling, context.dtype, context.device)
        return RotaryPositions.of(config.head_dim, config.rope_theta, config.rope_factor, context.dtype, context.device)

    def fused(self, falcon: Falcon) -> FusedModel | None:
        """All of it as one operation, if there is nothing to add between the blocks and one set of frequencies."""
        backend = self.context.backend
        if isinstance(falcon.rotary, DynamicRotaryPositions) or not isinstance(backend, FusedOps):
            return None
        layers = [block.parts for block in falcon.blocks if isinstance(block, SplitBlock) and block.bias is None]
        if self.context.parallel.size > 1 or len(layers) < len(falcon.blocks):
            return None
        frequencies = falcon.rotary.inverse_frequencies if falcon.rotary else None
        norm = falcon.final_norm
        parts = ModelParts(falcon.embedding.table, frequencies, layers, norm.affine, norm.epsilon, falcon.head.linear)
        return backend.fused_model(parts)

    def block(self, at: str) -> Block:
        context, config, part = self.context, self.context.config, self.context.partition
        norms = [self.norm(at + name) for name in layer_norms(config)]
        mlp_norm = norms[1] if len(norms) > 1 else None
        qkv, dense = (at + "self_attention.query_key_value", part.qkv), (at + "self_attention.dense", part.dense)
        up, down = (at + "mlp.dense_h_to_4h", part.ffn), (at + "mlp.dense_4h_to_h", part.ffn)
        inputs = self.by_rows(qkv), self.by_rows(up, activation=config.activation)
        if context.concatenates:
            for_attention, for_mlp = inputs
            assert isinstance(for_mlp, LinearInto), "a backend that packs weights has GEMMs with epilogues"
            outputs, bias = self.by_columns(dense, down), self.bias(dense[0], down[0])
            return ParallelBlock(context, norms[0], mlp_norm, for_attention, for_mlp, outputs, bias)
        apart = self.by_columns(dense), self.by_columns(down)
        if config.is_parallel:
            return self.fuse(SplitBlock(context, norms[0], mlp_norm, *inputs, *apart, self.bias(dense[0], down[0])))
        return SequentialBlock(context, norms[0], norms[1], *inputs, *apart, self.bias(dense[0]), self.bias(down[0]))

    def fuse(self, block: SplitBlock) -> SplitBlock:
        """The block with its layer as one operation, if the backend has that."""
        backend = self.context.backend
        return replace(block, fused=backend.fused_layer(block.parts)) if isinstance(backend, FusedOps) else block

    def norm(self, name: str) -> LayerNorm:
        weight, bias = (self.whole_vector(f"{name}.{kind}") for kind in ("weight", "bias"))
        return LayerNorm(weight, bias, self.context.config.layer_norm_epsilon, self.context.backend)

    def by_rows(self, part: tuple[str, Slice], activation: str | None = None) -> Linear:
        """A linear whose outputs are split over the ranks, bias and all."""
        name, rows = part
        bias = self.weights.vector((f"{name}.bias", rows)) if self.context.config.has_bias else None
        return self.context.backend.linear(self.context.format.load(self.weights, (part,), axis=0), bias, activation)

    def by_columns(self, *parts: tuple[str, Slice]) -> Linear:
        """Linears whose outputs are summed as one, their inputs split over the ranks. The block adds the bias."""
        return self.context.backend.linear(self.context.format.load(self.weights, parts, axis=1))

    def bias(self, *names: str) -> Tensor | None:
        """[H]: the sum of the biases of linears whose outputs are summed."""
        if not self.context.config.has_bias:
            return None
        return torch.stack([self.whole_vector(f"{name}.bias") for name in names]).sum(dim=0)

    def whole_vector(self, name: str) -> Tensor:
        return self.weights.vector((name, whole(self.context.config.hidden_size)))
