"""The paged KV cache and one step's view of it: what every attention backend takes."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The 8-bit types of pages, and the largest value of each: the largest element of a head becomes it."""

KV_DTYPES = {"int8": torch.int8, "fp8_e4m3fn": torch.float8_e4m3fn}
"""As --kv-cache-dtype names them. No e5m2: where every head has a scale, e4m3 is more exact in as many bits."""

SCALE_BYTES = 4


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
    slots: Tensor | None = None
    """int64[B]: each sequence's slot, for a model that keeps state by slot; else None."""

    def slots_of(self, sequence: int, block_size: int) -> Tensor:
        """int64[L]: where the L = context_lengths[sequence] tokens of one sequence lie, in order."""
        blocks = self.block_tables[sequence]
        offsets = torch.arange(block_size, device=blocks.device)
        return (blocks[:, None] * block_size + offsets).flatten()[: self.context_lengths[sequence]]


@dataclass(frozen=True, slots=True)
class GraphDecodeRows:
    """Decodes, several of one slot at successive positions among them."""

    rows: Tensor
    """int64[2, n]: the slot and the position of each."""
    token_ids: Tensor
    """int64[slots, positions]: the known tokens of every slot."""
    block_tables: Tensor
    """int64[slots, blocks]: what lies behind a slot's last block is not read."""
    block_size: int


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of every layer, in pages of `block_size` tokens."""

    layers: tuple[Tensor, ...]
    """[num_blocks, block_size, 2, kv_heads, head_dim] each: a token's K and V lie side by side. Of the model's type, or
    of 8 bits (int8, float8_e4m3fn) with `scales_of` them beside each block."""

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
        return KVCache(tuple(_empty_pages(shape, dtype, device) for _ in range(num_layers)))

    def copy_blocks(self, sources: Tensor, destinations: Tensor) -> None:
        """Copies blocks sources int64[N] to destinations int64[N]. All are read before any is written."""
        for pages in self.layers:
            blocks = whole_blocks(pages)
            blocks[destinations] = blocks[sources]


def whole_blocks(pages: Tensor) -> Tensor:
    """[num_blocks, ...]: a view of pages with all that a block holds, the scales of 8-bit values included."""
    if pages.dtype.itemsize > 1:
        return pages
    return pages.view(torch.uint8).as_strided((len(pages), pages.stride(0)), (pages.stride(0), 1))


def _empty_pages(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """8-bit blocks hold their values, then the values' scales: whoever copies a block copies both."""
    if dtype.itemsize > 1:
        return torch.empty(shape, dtype=dtype, device=device)
    num_blocks, *block = shape
    num_values = prod(block)
    rows = torch.empty(num_blocks, num_values + num_values // block[-1] * SCALE_BYTES, dtype=torch.uint8, device=device)
    return rows[:, :num_values].view(dtype).view(shape)


def scales_of(pages: Tensor) -> Tensor | None:
    """float32[num_blocks, block_size, 2, kv_heads]: a view of what 8-bit values of K and V are multiplied with, one for
    a token and head, which lies behind the values of each block. None for pages of any wider type."""
    if pages.dtype.itemsize > 1:
        return None
    *_, head_dim = pages.shape
    num_values, row = prod(pages.shape[1:]), pages.stride(0)
    scales = pages.view(torch.uint8).as_strided(
        (len(pages), num_values // head_dim * SCALE_BYTES), (row, 1), pages.storage_offset() + num_values
    )
    return scales.view(torch.float32).view(pages.shape[:4])


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [..., D] -> values [..., D] of 8-bit `dtype` and scales float32[...]: x is about values * scales[..., None]."""
    wide = x.float()
    largest = wide.abs().amax(-1)
    scales = torch.where(largest > 0, largest, 1.0) / LARGEST[dtype]
    scaled = wide / scales[..., None]
    return (torch.floor(scaled + 0.5) if dtype == torch.int8 else scaled).to(dtype), scales


def write_pages(pages: Tensor, slots: Tensor, kv: Tensor) -> None:
    """kv [T, 2, Hkv, D] to slots int64[T], in the pages' type."""
    at = slots // pages.shape[1], slots % pages.shape[1]
    scales = scales_of(pages)
    if scales is None:
        pages[at] = kv
    else:
        values, scales[at] = quantize(kv, pages.dtype)
        pages.view(torch.uint8)[at] = values.view(torch.uint8)  # torch indexes no fp8


def read_pages(pages: Tensor, slots: Tensor) -> Tensor:
    """K and V [L, 2, Hkv, D] at slots int64[L]; float32 where the pages are of 8 bits."""
    at = slots // pages.shape[1], slots % pages.shape[1]
    scales = scales_of(pages)
    if scales is None:
        return pages[at]
    return pages.view(torch.uint8)[at].view(pages.dtype).float() * scales[at][..., None]
