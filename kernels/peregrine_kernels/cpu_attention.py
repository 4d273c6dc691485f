"""Paged causal attention on a CPU.

What depends on the step alone (pages, masks, scratch memory) is planned once and serves every layer: an allocation of
megabytes costs more in page faults than the arithmetic done in it. Query heads that share a KV head are rows of one
matrix, so K and V are read once for all of them. Scores and softmax are float32.

B sequences, L keys, K KV heads, each of G query heads, D head dim.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels.paged import PagedBatch

MAX_KEYS = 1 << 21
"""Elements of K that decodes attend to in one go: bounds the scratch memory, and what must stay in the cache."""

MAX_SCORES = 1 << 21
"""Scores that a prefill chunk computes in one go, likewise."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What every layer of a model shares."""

    block_size: int
    num_kv_heads: int
    group: int
    head_dim: int
    dtype: torch.dtype

    def scratch(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype)

    def wide_scratch(self, narrow: Tensor) -> Tensor:
        """float32 of narrow's shape: narrow itself where it is float32."""
        return narrow if narrow.dtype == torch.float32 else torch.empty(narrow.shape)


@dataclass(frozen=True, slots=True)
class Pages:
    """The rows of the cache that hold some sequences' K and V, and where they are gathered to."""

    rows: Tensor
    """int64[B * K * L], of pages [slots * K, D]"""
    keys: Tensor
    """[B * K, L, D]"""
    values: Tensor
    """[B * K, L, D]"""

    @staticmethod
    def of(slots: Tensor, layout: Layout) -> "Pages":
        """slots int64[B, L]"""
        heads = torch.arange(layout.num_kv_heads)[:, None]
        rows = (slots[:, None, :] * layout.num_kv_heads + heads).flatten(0, 1)
        keys, values = (layout.scratch(*rows.shape, layout.head_dim) for _ in range(2))
        return Pages(rows.flatten(), keys, values)

    def gather(self, keys: Tensor, values: Tensor) -> None:
        """keys, values [slots * K, D]"""
        torch.index_select(keys, 0, self.rows, out=self.keys.flatten(0, 1))
        torch.index_select(values, 0, self.rows, out=self.values.flatten(0, 1))


@dataclass(frozen=True, slots=True)
class Decodes:
    """B sequences of one query token each, alike in length."""

    rows: slice | Tensor
    """B rows of q and out"""
    pages: Pages
    layout: Layout
    bias: Tensor
    """float32, broadcasts to [B, K, G, L]: masks the shorter ones, adds ALiBi"""

    @staticmethod
    def of(sequences: list[int], batch: PagedBatch, layout: Layout, alibi: Tensor | None) -> "Decodes":
        lengths = torch.tensor([batch.context_lengths[sequence] for sequence in sequences])
        position = torch.arange(int(lengths.max()))
        # A shorter sequence repeats its last token: a slot never written may hold NaN, which no mask removes.
        slots = [
            batch.slots_of(sequence, layout.block_size)[position.clamp(max=batch.context_lengths[sequence] - 1)]
            for sequence in sequences
        ]
        bias = torch.where(position < lengths[:, None], 0.0, -torch.inf)[:, None, None, :]
        if alibi is not None:
            bias = bias + alibi[:, :, : len(position)]
        return Decodes(as_slice(sequences), Pages.of(torch.stack(slots), layout), layout, bias)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        self.pages.gather(keys, values)
        num_kv_heads, group, head_dim = self.layout.num_kv_heads, self.layout.group, self.layout.head_dim
        k, v = (x.view(-1, num_kv_heads, *x.shape[1:]) for x in (self.pages.keys, self.pages.values))
        queries = q[self.rows].view(-1, num_kv_heads, group, head_dim)
        attended, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, k, v, attn_mask=self.bias)
        out[self.rows] = attended.reshape(len(attended), -1)


@dataclass(frozen=True, slots=True)
class WideDecodes:
    """As `Decodes`, with the steps of attention one by one, each over all sequences and heads."""

    decodes: Decodes
    wide_keys: Tensor
    """float32[B * K, L, D]"""
    bias: Tensor
    """float32, broadcasts to [B * K, G, L]"""
    scores: Tensor
    """float32[B * K, G, L]"""
    probabilities: Tensor
    """[B * K, G, L]"""

    @staticmethod
    def of(decodes: Decodes) -> "WideDecodes":
        layout, pages = decodes.layout, decodes.pages
        bias = decodes.bias.expand(-1, layout.num_kv_heads, -1, -1).flatten(0, 1)
        probabilities = layout.scratch(len(bias), layout.group, bias.shape[2])
        wide_keys, scores = layout.wide_scratch(pages.keys), layout.wide_scratch(probabilities)
        return WideDecodes(decodes, wide_keys, bias, scores, probabilities)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        pages, rows = self.decodes.pages, self.decodes.rows
        pages.gather(keys, values)
        self.wide_keys.copy_(pages.keys)
        queries = scaled(q[rows].reshape(len(self.scores), -1, keys.shape[1]))
        torch.baddbmm(self.bias, queries, self.wide_keys.mT, out=self.scores)
        torch.softmax(self.scores, -1, out=self.scores)
        attended = torch.bmm(self.probabilities.copy_(self.scores), pages.values)
        out[rows] = attended.view(-1, out.shape[1])


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The last N of one sequence's L tokens."""

    rows: slice
    """Of q and out"""
    pages: Pages
    layout: Layout
    alibi: Tensor | None
    """float32[K, G, >= L]"""
    step: int
    """How many query tokens are attended in one go"""
    wide_keys: Tensor
    """float32[K, L, D]"""
    causal: Tensor
    """float32[step, 1, step], -inf where the key comes after the query"""
    scores: Tensor
    """float32[step * K * G * L]"""
    probabilities: Tensor
    """[step * K * G * L]"""

    @staticmethod
    def of(sequence: int, rows: slice, batch: PagedBatch, layout: Layout, alibi: Tensor | None) -> "PrefillChunk":
        scores_per_token = layout.num_kv_heads * layout.group * batch.context_lengths[sequence]
        step = min(max(1, MAX_SCORES // scores_per_token), batch.query_lengths[sequence])
        pages = Pages.of(batch.slots_of(sequence, layout.block_size)[None], layout)
        causal = torch.full((step, step), -torch.inf).triu_(1)[:, None, :]
        probabilities = layout.scratch(step * scores_per_token)
        scores = layout.wide_scratch(probabilities)
        return PrefillChunk(
            rows, pages, layout, alibi, step, layout.wide_scratch(pages.keys), causal, scores, probabilities
        )

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        self.pages.gather(keys, values)
        self.wide_keys.copy_(self.pages.keys)
        shape = (-1, self.layout.num_kv_heads, self.layout.group, self.layout.head_dim)
        q, out = (x[self.rows].view(shape) for x in (q, out))
        for start in range(0, len(q), self.step):
            block = slice(start, min(start + self.step, len(q)))
            out[block] = self.attend_block(q[block], self.pages.keys.shape[1] - len(q) + block.stop)

    def attend_block(self, q: Tensor, length: int) -> Tensor:
        """q [n, K, G, D], the last n of the first `length` tokens -> [n, K, G, D]."""
        num_queries, num_kv_heads, group, head_dim = q.shape
        shape = (num_kv_heads, num_queries * group, length)
        scores, probabilities = (x[: math.prod(shape)].view(shape) for x in (self.scores, self.probabilities))
        queries = scaled(q.transpose(0, 1).reshape(num_kv_heads, -1, head_dim))
        torch.bmm(queries, self.wide_keys[:, :length].mT, out=scores)
        by_query = scores.view(num_kv_heads, num_queries, group, length)
        by_query[..., length - num_queries :] += self.causal[:num_queries, :, :num_queries]
        if self.alibi is not None:
            by_query += self.alibi[:, None, :, :length]
        torch.softmax(scores, -1, out=scores)
        attended = torch.bmm(probabilities.copy_(scores), self.pages.values[:, :length])
        return attended.view(num_kv_heads, num_queries, group, head_dim).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How one step's sequences are attended, layer after layer."""

    batch: PagedBatch
    alibi_slopes: Tensor | None
    parts: tuple[Decodes | WideDecodes | PrefillChunk, ...]

    @staticmethod
    def of(batch: PagedBatch, layout: Layout, alibi_slopes: Tensor | None) -> "AttentionPlan":
        alibi = None if alibi_slopes is None else scaled_alibi(alibi_slopes, max(batch.context_lengths), layout)
        parts: list[Decodes | WideDecodes | PrefillChunk] = []
        for sequences in alike_in_length(batch, layout):
            decodes = Decodes.of(sequences, batch, layout, alibi)
            parts.append(decodes if layout.num_kv_heads == 1 else WideDecodes.of(decodes))
        start = batch.num_decodes
        for sequence in range(batch.num_decodes, len(batch.query_lengths)):
            rows = slice(start, start + batch.query_lengths[sequence])
            parts.append(PrefillChunk.of(sequence, rows, batch, layout, alibi))
            start = rows.stop
        return AttentionPlan(batch, alibi_slopes, tuple(parts))

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """q, out [T, K * G * D]; keys, values [num_blocks, block_size, K, D]."""
        keys, values = keys.flatten(0, 2), values.flatten(0, 2)
        for part in self.parts:
            part.attend(q, keys, values, out)


def alike_in_length(batch: PagedBatch, layout: Layout) -> list[list[int]]:
    """The decodes in groups of at most MAX_KEYS elements (or one), none half as long as the longest of its group."""
    groups: list[list[int]] = []
    longest = 0
    for sequence in sorted(range(batch.num_decodes), key=lambda sequence: -batch.context_lengths[sequence]):
        length = batch.context_lengths[sequence]
        keys_of_one = longest * layout.num_kv_heads * layout.head_dim
        if groups and 2 * length > longest and (len(groups[-1]) + 1) * keys_of_one <= MAX_KEYS:
            groups[-1].append(sequence)
        else:
            groups.append([sequence])
            longest = length
    return [sorted(group) for group in groups]


def as_slice(rows: list[int]) -> slice | Tensor:
    """Ascending rows as a slice if they are consecutive, which makes views of what an index would copy."""
    is_run = rows[-1] - rows[0] == len(rows) - 1
    return slice(rows[0], rows[-1] + 1) if is_run else torch.tensor(rows)


def scaled(q: Tensor) -> Tensor:
    """q [..., D] / sqrt(D) in float32."""
    return q.float() / math.sqrt(q.shape[-1])


def scaled_alibi(slopes: Tensor, length: int, layout: Layout) -> Tensor:
    """float32[K, G, L]: what ALiBi adds to scores that are scaled already."""
    alibi = (slopes.bfloat16()[:, None] * torch.arange(length)).float() / math.sqrt(layout.head_dim)
    return alibi.view(layout.num_kv_heads, layout.group, length)
