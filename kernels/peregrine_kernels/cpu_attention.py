"""Paged causal attention on a CPU.

What depends on the step alone (which pages, which masks) is planned once and serves every layer. Query heads that
share a KV head are rows of one matrix, so K and V are read once for all of them. Scores and softmax are float32.

B sequences, L keys, K KV heads, each of G query heads, D head dim.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels.paged import PagedBatch

MAX_SCORES = 1 << 21
"""Scores of a prefill chunk that are computed at a time."""

MAX_KEYS = 1 << 21
"""Elements of K that are attended together in a decode."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of one layer's attention."""

    num_kv_heads: int
    group: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Decodes:
    """B sequences of one query token each, alike in length."""

    rows: Tensor
    """int64[B]"""
    slots: Tensor
    """int64[B * K * L]: rows of pages [slots * K, D]. A shorter sequence repeats its last token, because a slot that
    was never written may hold NaN, which no mask removes."""
    bias: Tensor | None
    """float32, broadcasts to [B * K, G, L]: the mask of the shorter ones, and ALiBi"""
    heads: Heads

    @staticmethod
    def of(sequences: list[int], batch: PagedBatch, block_size: int, heads: Heads, alibi: Tensor | None) -> "Decodes":
        lengths = torch.tensor([batch.context_lengths[sequence] for sequence in sequences])
        position = torch.arange(int(lengths.max()))
        slots = torch.stack(
            [
                batch.slots_of(sequence, block_size)[position.clamp(max=length - 1)]
                for sequence, length in zip(sequences, lengths.tolist(), strict=True)
            ]
        )
        bias = None
        if alibi is not None or int(lengths.min()) < len(position):
            mask = torch.zeros(len(sequences), 1, 1, len(position))
            mask.masked_fill_(position >= lengths[:, None, None, None], -torch.inf)
            if alibi is not None:
                mask = mask + alibi[:, :, : len(position)]
            bias = mask.expand(-1, heads.num_kv_heads, -1, -1).flatten(0, 1)
        return Decodes(torch.tensor(sequences), page_rows(slots, heads.num_kv_heads), bias, heads)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        shape = (len(self.rows) * self.heads.num_kv_heads, -1, self.heads.head_dim)
        k, v = (pages.index_select(0, self.slots).view(shape) for pages in (keys, values))
        queries = q.index_select(0, self.rows).view(shape)
        attended = softmax_attention(scaled(queries), k.float().mT, v, self.bias)
        out.index_copy_(0, self.rows, attended.view(len(self.rows), -1))


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The last N of one sequence's L tokens."""

    rows: slice
    slots: Tensor
    """int64[K * L]"""
    alibi: Tensor | None
    """float32[K, G, L]"""
    heads: Heads

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        shape = (self.heads.num_kv_heads, -1, self.heads.head_dim)
        k, v = (pages.index_select(0, self.slots).view(shape) for pages in (keys, values))
        k = k.float().mT
        q, out = (x[self.rows].view(-1, shape[0], self.heads.group, shape[2]) for x in (q, out))
        step = max(1, MAX_SCORES // (k.shape[2] * self.heads.num_kv_heads * self.heads.group))
        for start in range(0, len(q), step):
            block = slice(start, min(start + step, len(q)))
            length = k.shape[2] - len(q) + block.stop
            out[block] = self.attend_block(q[block], k[:, :, :length], v[:, :length])

    def attend_block(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [n, K, G, D], the last n of L tokens; k float32[K, D, L]; v [K, L, D] -> [n, K, G, D]."""
        num_queries, length = len(q), k.shape[2]
        scores = torch.bmm(scaled(q.transpose(0, 1).flatten(1, 2)), k)
        by_query = scores.view(self.heads.num_kv_heads, num_queries, self.heads.group, length)
        by_query[..., length - num_queries :] += torch.full((num_queries, num_queries), -torch.inf).triu_(1)[:, None]
        if self.alibi is not None:
            by_query += self.alibi[:, None, :, :length]
        attended = torch.bmm(scores.softmax(dim=-1).to(v.dtype), v)
        return attended.view(self.heads.num_kv_heads, num_queries, self.heads.group, -1).transpose(0, 1)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """q float32[N, G, D], scaled; k float32[N, D, L]; v [N, L, D]; bias broadcasts to [N, G, L] -> [N, G, D] like v."""
    scores = torch.bmm(q, k) if bias is None else torch.baddbmm(bias, q, k)
    return torch.bmm(scores.softmax(dim=-1).to(v.dtype), v)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How one step's sequences are attended, layer after layer."""

    batch: PagedBatch
    alibi_slopes: Tensor | None
    parts: tuple[Decodes | PrefillChunk, ...]

    @staticmethod
    def of(batch: PagedBatch, block_size: int, heads: Heads, alibi_slopes: Tensor | None) -> "AttentionPlan":
        alibi = None
        if alibi_slopes is not None:
            alibi = scaled_alibi(alibi_slopes, max(batch.context_lengths), heads)
        parts: list[Decodes | PrefillChunk] = [
            Decodes.of(group, batch, block_size, heads, alibi) for group in alike_in_length(batch, heads)
        ]
        start = batch.num_decodes
        for sequence in range(batch.num_decodes, len(batch.query_lengths)):
            end = start + batch.query_lengths[sequence]
            slots = page_rows(batch.slots_of(sequence, block_size)[None], heads.num_kv_heads)
            parts.append(PrefillChunk(slice(start, end), slots, alibi, heads))
            start = end
        return AttentionPlan(batch, alibi_slopes, tuple(parts))

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """q, out [T, K * G * D]; keys, values [num_blocks, block_size, K, D]."""
        for part in self.parts:
            part.attend(q, keys.flatten(0, 2), values.flatten(0, 2), out)


def alike_in_length(batch: PagedBatch, heads: Heads) -> list[list[int]]:
    """The decodes in groups of at most MAX_KEYS elements (or one), none twice as long as another of its group."""
    groups: list[list[int]] = []
    longest = 0
    for sequence in sorted(range(batch.num_decodes), key=lambda sequence: -batch.context_lengths[sequence]):
        length = batch.context_lengths[sequence]
        has_room = groups and (len(groups[-1]) + 1) * longest * heads.num_kv_heads * heads.head_dim <= MAX_KEYS
        if has_room and 2 * length > longest:
            groups[-1].append(sequence)
        else:
            groups.append([sequence])
            longest = length
    return groups


def page_rows(slots: Tensor, num_kv_heads: int) -> Tensor:
    """slots int64[B, L] -> int64[B * K * L], the rows of pages [slots * K, D] in the order [B, K, L]."""
    rows: Tensor = slots[:, None, :] * num_kv_heads + torch.arange(num_kv_heads)[:, None]
    return rows.flatten()


def scaled(q: Tensor) -> Tensor:
    """q [..., D] / sqrt(D) in float32."""
    return q.float() / math.sqrt(q.shape[-1])


def scaled_alibi(slopes: Tensor, length: int, heads: Heads) -> Tensor:
    """float32[K, G, L]: what ALiBi adds to scores that are scaled already."""
    alibi = (slopes.bfloat16()[:, None] * torch.arange(length)).float() / math.sqrt(heads.head_dim)
    return alibi.view(heads.num_kv_heads, heads.group, length)
