"""A Falcon from a checkpoint: one rank's share of each weight, packed for its device."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from peregrine_kernels import Backend, FusedModel, Linear, ModelParts, backend_for
from peregrine_kernels.dense_linear import PlainLinear
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.layers import Embedding, Head, LayerNorm, RotaryPositions, alibi_slopes
from peregrine_server.models.falcon.model import Block, Falcon, ParallelBlock, Rank, SequentialBlock, SplitBlock
from peregrine_server.models.falcon.partition import Slice, partition, whole
from peregrine_server.models.loading.weights import Progress, Weights, layer_norms


def load_falcon(
    path: Path,
    config: FalconConfig,
    parallel: TensorParallel,
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend | None = None,
    progress: Progress | None = None,
    kv_dtype: torch.dtype | None = None,
) -> Falcon:
    """Loads this rank's share of the checkpoint in directory `path`, cast to `dtype`, for `backend`. Its KV caches will
    be of the 8-bit `kv_dtype`, or of `dtype`.

    The host needs room for the rank's weights and one tensor. Raises CheckpointError.
    """
    backend = backend or backend_for(device)
    part = partition(config, parallel.rank, parallel.size)
    with Weights(path, config, parallel.size, device, dtype, progress) as weights:
        slopes = alibi_slopes(config.num_heads, part.heads, device) if config.has_alibi else None
        loader = Loader(Rank(weights.config, part, parallel, backend, device, dtype, slopes, kv_dtype), weights)
        return loader.falcon()


@dataclass(frozen=True, slots=True)
class Loader:
    """Assembles a model from weights, in the order in which a checkpoint holds them."""

    rank: Rank
    weights: Weights

    def falcon(self) -> Falcon:
        rank, config, vocab = self.rank, self.rank.config, self.rank.part.vocab
        table = self.weights.rows(("word_embeddings.weight", vocab))
        embedding = Embedding(table, rank.part.vocab_start, rank.parallel)
        rotary = None if config.has_alibi else RotaryPositions.of(config, rank.dtype, rank.device)
        blocks = tuple(self.block(f"h.{layer}.") for layer in range(config.num_layers))
        final_norm = self.norm("ln_f")
        # A tied head is the table itself; where linears are packed, it is packed beside the table.
        linear = rank.backend.linear(table if config.is_tied else self.weights.rows(("lm_head.weight", vocab)))
        head = Head(linear, config.vocab_size, rank.parallel)
        falcon = Falcon(rank, embedding, rotary, blocks, final_norm, head)
        return replace(falcon, fused=self.fused(falcon))

    def fused(self, falcon: Falcon) -> FusedModel | None:
        """All of it as one operation, if there is nothing to add between the blocks."""
        layers = [block.parts for block in falcon.blocks if isinstance(block, SplitBlock) and block.bias is None]
        if self.rank.parallel.size > 1 or len(layers) < len(falcon.blocks):
            return None
        frequencies = falcon.rotary.inverse_frequencies if falcon.rotary else None
        norm = falcon.final_norm
        parts = ModelParts(falcon.embedding.table, frequencies, layers, norm.affine, norm.epsilon, falcon.head.linear)
        return self.rank.backend.fused_model(parts)

    def block(self, at: str) -> Block:
        rank, config, part = self.rank, self.rank.config, self.rank.part
        norms = [self.norm(at + name) for name in layer_norms(config)]
        mlp_norm = norms[1] if len(norms) > 1 else None
        qkv, dense = (at + "self_attention.query_key_value", part.qkv), (at + "self_attention.dense", part.dense)
        up, down = (at + "mlp.dense_h_to_4h", part.ffn), (at + "mlp.dense_4h_to_h", part.ffn)
        inputs = self.by_rows(qkv), self.by_rows(up, activation=config.activation)
        if rank.concatenates:
            for_attention, for_mlp = inputs
            assert isinstance(for_mlp, PlainLinear), "a backend that packs weights has GEMMs with epilogues"
            outputs, bias = self.by_columns(dense, down), self.bias(dense[0], down[0])
            return ParallelBlock(rank, norms[0], mlp_norm, for_attention, for_mlp, outputs, bias)
        apart = self.by_columns(dense), self.by_columns(down)
        if config.is_parallel:
            block = SplitBlock(rank, norms[0], mlp_norm, *inputs, *apart, self.bias(dense[0], down[0]))
            return replace(block, fused=rank.backend.fused_layer(block.parts))
        return SequentialBlock(rank, norms[0], norms[1], *inputs, *apart, self.bias(dense[0]), self.bias(down[0]))

    def norm(self, name: str) -> LayerNorm:
        weight, bias = (self.whole_vector(f"{name}.{kind}") for kind in ("weight", "bias"))
        return LayerNorm(weight, bias, self.rank.config.layer_norm_epsilon, self.rank.backend)

    def by_rows(self, part: tuple[str, Slice], activation: str | None = None) -> Linear:
        """A linear whose outputs are split over the ranks, bias and all."""
        name, rows = part
        bias = self.weights.vector((f"{name}.bias", rows)) if self.rank.config.has_bias else None
        weight = self.weights.rows((f"{name}.weight", rows))
        return self.rank.backend.linear(weight, bias, activation)

    def by_columns(self, *parts: tuple[str, Slice]) -> Linear:
        """Linears whose outputs are summed as one, their inputs split over the ranks. The block adds the bias."""
        return self.rank.backend.linear(self.weights.columns(*((f"{name}.weight", columns) for name, columns in parts)))

    def bias(self, *names: str) -> Tensor | None:
        """[H]: the sum of the biases of linears whose outputs are summed."""
        if not self.rank.config.has_bias:
            return None
        return torch.stack([self.whole_vector(f"{name}.bias") for name in names]).sum(dim=0)

    def whole_vector(self, name: str) -> Tensor:
        return self.weights.vector((name, whole(self.rank.config.hidden_size)))
