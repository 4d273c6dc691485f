"""Paged causal attention on a CPU.

What depends on the step alone (pages, masks, rows) is planned once and serves every layer. Query heads that share a KV
head are rows of one matrix, so K and V are read once for all of them.

B sequences attended together, L keys, K KV heads, each of G query heads, D head dim.
"""

from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from peregrine_kernels.paged import PagedBatch

_MAX_SCORES = 1 << 21
"""Scores computed at a time for a prefill chunk: 8 MiB of float32."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How one step's sequences are attended, layer after layer."""

    batch: PagedBatch
    alibi_slopes: Tensor | None
    parts: tuple["Decodes | PrefillChunk", ...]

    @staticmethod
    def of(batch: PagedBatch, block_size: int, alibi_slopes: Tensor | None) -> "AttentionPlan":
        slots = [batch.slots_of(sequence, block_size) for sequence in range(len(batch.query_lengths))]
        decodes = [Decodes.of(group, slots, alibi_slopes) for group in alike_in_length(batch)]
        prefills: list[PrefillChunk] = []
        start = batch.num_decodes
        for sequence in range(batch.num_decodes, len(slots)):
            end = start + batch.query_lengths[sequence]
            prefills.append(PrefillChunk(slice(start, end), slots[sequence], alibi_slopes))
            start = end
        return AttentionPlan(batch, alibi_slopes, (*decodes, *prefills))

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """q, out [T, K * G * D]; keys, values [num_blocks, block_size, K, D]."""
        num_kv_heads, head_dim = keys.shape[2:]
        shape = (num_kv_heads, q.shape[1] // (num_kv_heads * head_dim), head_dim)
        for part in self.parts:
            part.attend(q.unflatten(1, shape), keys.flatten(0, 1), values.flatten(0, 1), out.unflatten(1, shape))


@dataclass(frozen=True, slots=True)
class Decodes:
    """B sequences of one query token each, alike in length."""

    rows: Tensor
    """int64[B]"""
    slots: Tensor
    """int64[B * L]. A shorter sequence repeats its last slot: one never written may hold NaN, which no mask removes."""
    mask: Tensor
    """float32[B, 1, 1, L], or [B, K * G, 1, L] with ALiBi: added to the scaled scores"""

    @staticmethod
    def of(sequences: list[int], slots: list[Tensor], alibi_slopes: Tensor | None) -> "Decodes":
        lengths = torch.tensor([len(slots[sequence]) for sequence in sequences])
        position = torch.arange(int(lengths.max()))
        padded = [slots[sequence][position.clamp(max=len(slots[sequence]) - 1)] for sequence in sequences]
        mask = torch.zeros(len(sequences), 1, 1, len(position))
        mask.masked_fill_(position >= lengths[:, None, None, None], -torch.inf)
        return Decodes(torch.tensor(sequences), torch.cat(padded), mask)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        k, v = (pages[self.slots].unflatten(0, (len(self.rows), -1)).transpose(1, 2) for pages in (keys, values))
        attended, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[self.rows], k, v, attn_mask=self.mask
        )
        out[self.rows] = attended


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The last N of one sequence's L tokens."""

    rows: slice
    slots: Tensor
    alibi_slopes: Tensor | None

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        k, v = keys[self.slots].permute(1, 2, 0).float(), values[self.slots].transpose(0, 1)
        q, out = q[self.rows], out[self.rows]
        step = max(1, _MAX_SCORES // (len(self.slots) * q.shape[1] * q.shape[2]))
        for start in range(0, len(q), step):
            block = slice(start, start + step)
            length = len(self.slots) - len(q) + min(block.stop, len(q))
            out[block] = self.attend_block(q[block], k[:, :, :length], v[:, :length])

    def attend_block(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [n, K, G, D], the last n of L tokens; k float32[K, D, L]; v [K, L, D] -> [n, K, G, D]."""
        num_queries, num_kv_heads, _, head_dim = q.shape
        rows = q.transpose(0, 1).flatten(1, 2).float() * head_dim**-0.5
        scores = torch.bmm(rows, k)
        by_query = scores.view(num_kv_heads, num_queries, -1, k.shape[2])
        by_query[..., -num_queries:] += torch.full((num_queries, num_queries), -torch.inf).triu_(1)[:, None]
        if self.alibi_slopes is not None:
            alibi = scaled_alibi(self.alibi_slopes, k.shape[2], head_dim)
            by_query += alibi.view(num_kv_heads, 1, -1, k.shape[2])
        attended = torch.bmm(scores.softmax(dim=-1).to(v.dtype), v)
        return attended.unflatten(1, (num_queries, -1)).transpose(0, 1)


def alike_in_length(batch: PagedBatch) -> list[list[int]]:
    """The decodes in groups, each at most twice as long as another of its group: padding at most doubles the work."""
    ...


def scaled_alibi(slopes: Tensor, length: int, head_dim: int) -> Tensor:
    """float32[H, L]: what ALiBi adds to scores that are scaled already."""
    return (slopes.bfloat16()[:, None] * torch.arange(length)).float() * head_dim**-0.5
