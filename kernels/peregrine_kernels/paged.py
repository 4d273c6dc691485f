"""The paged KV cache and one step's view of it: what every attention backend takes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """The tokens of one step. Decodes (one token each) come first, then prefill chunks; T tokens of B sequences.

    Lengths are known on the host as well: the router fixed them before the step ran. A batch is immutable, tensors and
    all: a backend may derive what it needs of one at its first layer and keep that for the others.
    """

    positions: Tensor
    """int64[T]: each token's position in its sequence."""
    slot_mapping: Tensor
    """int64[T]: where each token's K and V are written: block * block_size + offset."""
    block_tables: Tensor
    """int64[B, max_blocks]: the blocks of each sequence in order; padded with 0."""
    query_lengths: tuple[int, ...]
    """How many of the T tokens belong to each sequence."""
    context_lengths: tuple[int, ...]
    """Tokens of each sequence in the cache once this step has written its own."""
    num_decodes: int
    """The first `num_decodes` sequences have query length 1 and are attended together."""

    def slots_of(self, sequence: int, block_size: int) -> Tensor:
        """int64[L]: where the L = context_lengths[sequence] tokens of one sequence lie, in order."""
        blocks = self.block_tables[sequence]
        offsets = torch.arange(block_size, device=blocks.device)
        return (blocks[:, None] * block_size + offsets).flatten()[: self.context_lengths[sequence]]


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of every layer, in pages of `block_size` tokens."""

    layers: tuple[Tensor, ...]
    """[num_blocks, block_size, 2, kv_heads, head_dim] each: a token's K and V lie side by side."""

    @staticmethod
    def allocate(
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        """Uninitialised pages. On a CPU the memory is committed only as blocks are first written."""
        shape = (num_blocks, block_size, 2, num_kv_heads, head_dim)
        return KVCache(tuple(torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)))

    def copy_blocks(self, sources: Tensor, destinations: Tensor) -> None:
        """Copies blocks sources int64[N] to destinations int64[N]. All are read before any is written."""
        for pages in self.layers:
            pages[destinations] = pages[sources]
