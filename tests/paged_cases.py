"""One step's input for the ops on the paged KV cache: ragged batches on shuffled pages."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from peregrine_kernels import Backend, KVCache, PagedBatch, Rotary
from peregrine_kernels.kv_cache import GraphDecodeRows, read_pages, scales_of, write_pages

Sequences = list[tuple[int, int]]
"""Query length and context length of each."""

PADDING = 32
"""Columns past those of a row: what is there must be neither read nor written."""


@dataclass(frozen=True)
class Case:
    """A ragged batch; memory without a token is NaN, in the pages as in the padding of the rows."""

    num_heads: int
    batch: PagedBatch
    pages: Tensor
    fused: Tensor
    """[T, (Hq + 2 Hkv) * D + PADDING]"""
    rotary: Rotary | None
    alibi_slopes: Tensor | None

    @property
    def width(self) -> int:
        """Width of q: Hq * D."""
        return self.num_heads * self.pages.shape[-1]

    def copy(self) -> "Case":
        return replace(self, pages=copied(self.pages), fused=self.fused.clone())

    def of_type(self, dtype: torch.dtype) -> "Case":
        """Rows in a floating-point type; pages too, unless they are of 8 bits."""
        rotary = None if self.rotary is None else (self.rotary[0].to(dtype), self.rotary[1].to(dtype))
        pages = copied(self.pages) if self.pages.dtype.itemsize == 1 else self.pages.to(dtype, copy=True)
        return replace(self, pages=pages, fused=self.fused.to(dtype, copy=True), rotary=rotary)

    def quantized(self, kv_dtype: torch.dtype) -> "Case":
        """Pages of 8 bits with what the sequences' pages hold."""
        num_blocks, block_size, _, num_kv_heads, head_dim = self.pages.shape
        pages = nan_pages(num_blocks, block_size, num_kv_heads, head_dim, kv_dtype)
        for sequence in range(len(self.batch.context_lengths)):
            slots = self.batch.slots_of(sequence, block_size)
            write_pages(pages, slots, read_pages(self.pages, slots))
        return replace(self, pages=pages)

    def exact(self) -> "Case":
        """In float64, pages too."""
        wide, scales = self.of_type(torch.float64), scales_of(self.pages)
        return wide if scales is None else replace(wide, pages=self.pages.double() * scales.double()[..., None])

    def to(self, device: torch.device) -> "Case":
        batch = replace(
            self.batch,
            positions=self.batch.positions.to(device),
            slot_mapping=self.batch.slot_mapping.to(device),
            block_tables=self.batch.block_tables.to(device),
        )
        rotary = None if self.rotary is None else (self.rotary[0].to(device), self.rotary[1].to(device))
        slopes = None if self.alibi_slopes is None else self.alibi_slopes.to(device)
        return Case(self.num_heads, batch, copied(self.pages, device), self.fused.to(device), rotary, slopes)

    def write(self, backend: Backend) -> None:
        backend.rotary_kv_write(self.fused[:, :-PADDING], self.rotary, self.batch, self.pages, self.num_heads)

    def attend(self, backend: Backend) -> Tensor:
        """[T, Hq * D], by way of wider rows whose other columns must stay as they were."""
        out = torch.full((len(self.fused), self.width + PADDING), 7.0, dtype=self.fused.dtype, device=self.fused.device)
        q = self.fused[:, : self.width]
        backend.attention(q, self.batch, self.pages, self.alibi_slopes, out[:, : self.width])
        assert (out[:, self.width :] == 7.0).all()
        return out[:, : self.width]


def slot_rows(token_ids: Tensor, batch: PagedBatch, block_size: int) -> GraphDecodeRows:
    """A batch of decodes alone, the tokens int64[n] of which are the last known ones of slots in another order."""
    order = torch.randperm(len(token_ids)).to(token_ids.device)
    known = token_ids.new_zeros(len(token_ids), int(batch.positions.max()) + 1)
    known[order, batch.positions] = token_ids
    tables = torch.empty_like(batch.block_tables)
    tables[order] = batch.block_tables
    return GraphDecodeRows(torch.stack([order, batch.positions]), known, tables, block_size)


def copied(pages: Tensor, device: torch.device | None = None) -> Tensor:
    """Pages of their own storage, scales and all."""
    device = device or pages.device
    storage = torch.empty(pages.untyped_storage().nbytes(), dtype=torch.uint8, device=device)
    storage.copy_(torch.empty(0, dtype=torch.uint8, device=pages.device).set_(pages.untyped_storage()))
    return storage.view(pages.dtype).as_strided(pages.shape, pages.stride())


def nan_pages(num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> Tensor:
    """One layer's pages that no token was written to: NaN, or scales that are."""
    pages = KVCache.allocate(1, num_blocks, block_size, num_kv_heads, head_dim, dtype, torch.device("cpu")).layers[0]
    torch.empty(0, dtype=torch.uint8).set_(pages.untyped_storage()).fill_(0xFF)  # NaN in every floating-point type
    return pages


def page_batch(sequences: Sequences, block_size: int) -> tuple[PagedBatch, int]:
    """The batch of some sequences on randomly chosen blocks, and how many blocks there are."""
    sequences = sorted(sequences, key=lambda lengths: lengths[0] != 1)
    num_blocks = [-(-context // block_size) for _, context in sequences]
    shuffled = torch.randperm(sum(num_blocks) + 2)
    tables = torch.zeros(len(sequences), max(num_blocks), dtype=torch.int64)
    positions, slots = [], []
    for row, (query, context) in enumerate(sequences):
        blocks, shuffled = shuffled.tensor_split([num_blocks[row]])
        tables[row, : len(blocks)] = blocks
        position = torch.arange(context - query, context)
        positions.append(position)
        slots.append(blocks[position // block_size] * block_size + position % block_size)
    queries, contexts = zip(*sequences, strict=True)
    num_decodes = sum(query == 1 for query in queries)
    batch = PagedBatch(torch.cat(positions), torch.cat(slots), tables, queries, contexts, num_decodes)
    return batch, sum(num_blocks) + 2


def make_case(
    sequences: Sequences,
    heads: tuple[int, int, int],
    block_size: int = 16,
    alibi: bool = False,
    dtype: torch.dtype = torch.float32,
    kv_dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Case:
    """heads: query heads, KV heads, head dimension. The pages hold the prefix of each sequence."""
    torch.manual_seed(seed)
    num_heads, num_kv_heads, head_dim = heads
    batch, num_blocks = page_batch(sequences, block_size)
    pages = nan_pages(num_blocks, block_size, num_kv_heads, head_dim, kv_dtype or dtype)
    for sequence, (query, context) in enumerate(zip(batch.query_lengths, batch.context_lengths, strict=True)):
        prefix = batch.slots_of(sequence, block_size)[: context - query]
        write_pages(pages, prefix, torch.randn(len(prefix), 2, num_kv_heads, head_dim).to(dtype))
    num_tokens, width = len(batch.positions), (num_heads + 2 * num_kv_heads) * head_dim
    fused = torch.cat((torch.randn(num_tokens, width), torch.full((num_tokens, PADDING), torch.nan)), dim=1).to(dtype)
    angles = (batch.positions[:, None] * torch.rand(head_dim // 2)).repeat(1, 2)
    rotary = None if alibi else (angles.cos()[:, None].to(dtype), angles.sin()[:, None].to(dtype))
    return Case(num_heads, batch, pages, fused, rotary, torch.rand(num_heads).bfloat16().float() if alibi else None)
