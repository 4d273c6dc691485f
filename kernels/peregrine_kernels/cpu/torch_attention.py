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

from peregrine_kernels.kv_cache import PagedBatch, read_pages, scales_of

MAX_KEYS = 1 << 21
"""Elements of K that decodes attend to in one go: bounds the scratch memory, and the working set in the cache."""

MIN_NARROW_GROUP = 4
"""Query heads a KV head from which bfloat16 attention is at least as fast as float32: its two GEMMs a sequence and KV
head cost 15 us each, however small. 2 cores with AVX512-BF16, 8 sequences of 136 tokens, cold caches, D = 64: 16 heads
of 1 query head 3.7 ms (float32 1.1 ms), 8 of 16 1.45 ms (float32 1.46 ms), 1 of 32 0.34 ms (float32 0.36 ms)."""

MAX_SCORES = 1 << 21
"""Scores that a prefill chunk computes in one go, likewise."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape and dtype that all layers of a model share."""

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
class Gathered:
    """K and V of some sequences, out of their pages."""

    slots: Tensor
    """int64[B * L]"""
    tokens: Tensor
    """[B, L, 2, K, D], dequantized where the pages are of 8 bits"""

    @staticmethod
    def of(slots: Tensor, layout: Layout) -> "Gathered":
        """slots int64[B, L]"""
        return Gathered(slots.flatten(), layout.scratch(*slots.shape, 2, layout.num_kv_heads, layout.head_dim))

    def gather(self, pages: Tensor) -> None:
        """pages [num_blocks, block_size, 2, K, D]"""
        tokens = self.tokens.flatten(0, 1)
        if scales_of(pages) is None:
            torch.index_select(pages.flatten(0, 1), 0, self.slots, out=tokens)
        else:
            tokens.copy_(read_pages(pages, self.slots))


@dataclass(frozen=True, slots=True)
class Decodes:
    """B sequences of one query token each, alike in length."""

    rows: slice | Tensor
    """B rows of q and out"""
    gathered: Gathered
    layout: Layout
    tokens: Tensor
    """[B, L, 2, K, D] as they are attended: the gathered ones, or float32"""
    keys: Tensor
    """[B, K, L, D] of `tokens`"""
    values: Tensor
    bias: Tensor | None
    """float32, broadcasts to [B, K, G, L]: masks the shorter ones, adds ALiBi"""

    @staticmethod
    def of(sequences: list[int], batch: PagedBatch, layout: Layout, alibi: Tensor | None) -> "Decodes":
        lengths = torch.tensor([batch.context_lengths[sequence] for sequence in sequences])
        position = torch.arange(int(lengths.max()))
        # A shorter sequence repeats its last token: a slot never written may hold NaN, which no mask removes.
        known = torch.minimum(position, lengths[:, None] - 1)
        blocks = batch.block_tables[as_slice(sequences)].gather(1, known // layout.block_size)
        gathered = Gathered.of(blocks * layout.block_size + known % layout.block_size, layout)
        tokens = gathered.tokens
        if layout.group < MIN_NARROW_GROUP:
            tokens = layout.wide_scratch(tokens)
        keys, values = tokens.permute(2, 0, 3, 1, 4)
        bias = decode_bias(lengths, position, alibi)
        return Decodes(as_slice(sequences), gathered, layout, tokens, keys, values, bias)

    def attend(self, q: Tensor, pages: Tensor) -> Tensor:
        """q [T, K * G * D], pages [num_blocks, block_size, 2, K, D] -> [B, K * G * D]"""
        self.gathered.gather(pages)
        if self.tokens is not self.gathered.tokens:
            self.tokens.copy_(self.gathered.tokens)
        queries = q[self.rows].view(-1, self.layout.num_kv_heads, self.layout.group, self.layout.head_dim)
        attended, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries.to(self.tokens.dtype), self.keys, self.values, attn_mask=self.bias
        )
        rows: Tensor = attended.reshape(len(attended), -1).to(q.dtype)
        return rows


def decode_bias(lengths: Tensor, position: Tensor, alibi: Tensor | None) -> Tensor | None:
    """float32, broadcasts to [B, K, G, L]: -inf past each sequence's length, ALiBi; None where nothing is added."""
    is_padding = position >= lengths[:, None]
    if alibi is None and not is_padding.any():
        return None
    bias = torch.zeros(is_padding.shape).masked_fill_(is_padding, -torch.inf)[:, None, None, :]
    return bias if alibi is None else bias + alibi[:, :, : len(position)]


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The last N of one sequence's L tokens."""

    rows: slice
    """Rows of q and out."""
    gathered: Gathered
    layout: Layout
    alibi: Tensor | None
    """float32[K, G, >= L]"""
    step: int
    """How many query tokens are attended in one go"""
    keys: Tensor
    """float32[K, L, D]"""
    values: Tensor
    """[K, L, D]"""
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
        gathered = Gathered.of(batch.slots_of(sequence, layout.block_size)[None], layout)
        values = layout.scratch(layout.num_kv_heads, batch.context_lengths[sequence], layout.head_dim)
        causal = torch.full((step, step), -torch.inf).triu_(1)[:, None, :]
        probabilities = layout.scratch(step * scores_per_token)
        scores, keys = layout.wide_scratch(probabilities), torch.empty(values.shape)
        return PrefillChunk(rows, gathered, layout, alibi, step, keys, values, causal, scores, probabilities)

    def attend(self, q: Tensor, pages: Tensor, out: Tensor) -> None:
        """q, out [T, K * G * D], pages [num_blocks, block_size, 2, K, D]"""
        self.gathered.gather(pages)
        for ours, theirs in zip((self.keys, self.values), self.gathered.tokens[0].permute(1, 2, 0, 3), strict=True):
            ours.copy_(theirs)
        shape = (-1, self.layout.num_kv_heads, self.layout.group, self.layout.head_dim)
        q, out = (x[self.rows].view(shape) for x in (q, out))
        for start in range(0, len(q), self.step):
            block = slice(start, min(start + self.step, len(q)))
            out[block] = self.attend_block(q[block], self.keys.shape[1] - len(q) + block.stop)

    def attend_block(self, q: Tensor, length: int) -> Tensor:
        """q [n, K, G, D], the last n of the first `length` tokens -> [n, K, G, D]."""
        num_queries, num_kv_heads, group, head_dim = q.shape
        shape = (num_kv_heads, num_queries * group, length)
        scores, probabilities = (x[: math.prod(shape)].view(shape) for x in (self.scores, self.probabilities))
        queries = scaled(q.transpose(0, 1).reshape(num_kv_heads, -1, head_dim))
        torch.bmm(queries, self.keys[:, :length].mT, out=scores)
        by_query = scores.view(num_kv_heads, num_queries, group, length)
        by_query[..., length - num_queries :] += self.causal[:num_queries, :, :num_queries]
        if self.alibi is not None:
            by_query += self.alibi[:, None, :, :length]
        torch.softmax(scores, -1, out=scores)
        attended = torch.bmm(probabilities.copy_(scores), self.values[:, :length])
        return attended.view(num_kv_heads, num_queries, group, head_dim).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How one step's sequences are attended, layer after layer."""

    batch: PagedBatch
    alibi_slopes: Tensor | None
    decodes: tuple[Decodes, ...]
    chunks: tuple[PrefillChunk, ...]

    @staticmethod
    def of(batch: PagedBatch, layout: Layout, alibi_slopes: Tensor | None) -> "AttentionPlan":
        alibi = None if alibi_slopes is None else scaled_alibi(alibi_slopes, max(batch.context_lengths), layout)
        decodes = tuple(Decodes.of(sequences, batch, layout, alibi) for sequences in alike_in_length(batch, layout))
        chunks, start = [], batch.num_decodes
        for sequence in range(batch.num_decodes, len(batch.query_lengths)):
            rows = slice(start, start + batch.query_lengths[sequence])
            chunks.append(PrefillChunk.of(sequence, rows, batch, layout, alibi))
            start = rows.stop
        return AttentionPlan(batch, alibi_slopes, decodes, tuple(chunks))

    def attend(self, q: Tensor, pages: Tensor, out: Tensor | None) -> Tensor:
        """q, out [T, K * G * D]; pages [num_blocks, block_size, 2, K, D] -> out, if there is one."""
        if out is None and not self.chunks and len(self.decodes) == 1:
            return self.decodes[0].attend(q, pages)
        out = q.new_empty(q.shape) if out is None else out
        for decodes in self.decodes:
            out[decodes.rows] = decodes.attend(q, pages)
        for chunk in self.chunks:
            chunk.attend(q, pages, out)
        return out


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
