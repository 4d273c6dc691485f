"""Falcon on a paged KV cache, one rank of it: the model, its three kinds of blocks, and how it is loaded.

T tokens of one step, H hidden size; a rank has Hq query heads and Hkv KV heads of dimension D, and F of the MLP's width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peregrine_kernels import Backend, KVCache, Linear, PagedBatch, Rotary, backend_for
from torch import Tensor

from peregrine_server import memory
from peregrine_server.model.config import FalconConfig
from peregrine_server.model.layers import Embedding, Head, RotaryPositions, alibi_slopes
from peregrine_server.model.partition import Partition, partition, whole
from peregrine_server.model.weights import Weights, layer_norms
from peregrine_server.parallel import TensorParallel

Progress = Callable[[int, int], None]
"""Called with (bytes loaded, bytes in all) of this rank, in the serving dtype."""


class Falcon:
    """One rank's share of a model. It holds weights and no state: `forward` is a function of its arguments."""

    def __init__(
        self,
        context: "Context",
        embedding: Embedding,
        rotary: RotaryPositions | None,
        blocks: tuple["Block", ...],
        final_norm: "LayerNorm",
        head: Head,
    ) -> None:
        """`load_falcon` assembles the parts."""
        self.config = context.config
        self._context = context
        self._embedding, self._rotary, self._blocks = embedding, rotary, blocks
        self._final_norm, self._head = final_norm, head

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, batch: PagedBatch, kv: KVCache) -> Tensor:
        """token_ids int64[T] -> hidden states after the last LayerNorm [T, H], alike on every rank.

        Writes the tokens' keys and values to `kv` at the batch's slots. Every rank calls it with the same arguments
        but its own cache.
        """
        x = self._embedding(token_ids)
        step = StepBuffers.of(self._context, batch, self._rotary(batch.positions) if self._rotary else None)
        for block, keys, values in zip(self._blocks, kv.keys, kv.values, strict=True):
            x = block(x, step, keys, values)
        return self._final_norm(x)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [S, H] -> float32[S, vocabulary], alike on every rank. Every rank calls it."""
        return self._head(hidden)

    def allocate_kv_cache(self, num_blocks: int, block_size: int) -> KVCache:
        """This rank's pages for num_blocks * block_size tokens."""
        c, part = self._context, self._context.part
        return KVCache.allocate(
            self.config.num_layers, num_blocks, block_size, part.num_kv_heads, self.config.head_dim, c.dtype, c.device
        )

    @property
    def kv_bytes_per_token(self) -> int:
        """On this rank."""
        return memory.kv_bytes_per_token(self.config, self._context.parallel.size, self._context.dtype_name)

    @property
    def weight_bytes(self) -> int:
        """On this rank."""
        c = self._context
        return memory.weight_bytes(self.config, c.parallel.size, c.dtype_name, has_packed_head=c.device.type == "cpu")
