"""Prefix matching: which blocks of a sequence are taken from the prefix cache, and which are added to it.

Full blocks of known tokens can be found by their hash as soon as the step that fills them is sent, because shards
execute steps in order. Blocks that a chunk fills can be found within the same step, because in each layer a shard
writes the K and V of all of a step's tokens before any are read. A new sequence shares the longest matching prefix by
reference: of requests that arrive together with one new prefix, the first computes it.
"""

from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.sequence import Sequence


class PrefixMatcher:
    """The use that sequences make of the pool's cached blocks; with `is_on` False none is ever found."""

    def __init__(self, pool: BlockPool, *, is_on: bool) -> None:
        self.num_cached_tokens = 0
        """Prompt tokens found in the cache so far."""
        self.num_prompt_tokens = 0
        """Tokens of the prompts that were looked for."""
        self._pool = pool
        self._is_on = is_on

    def acquire_cached(self, sequence: Sequence) -> list[int]:
        """The cached blocks of the sequence's longest matching prefix; each gains an owner."""
        return self._pool.acquire_cached(sequence.hashes(self._pool.block_size, 0, self._num_reusable(sequence)))

    def num_to_compute(self, sequence: Sequence) -> int:
        """Tokens that a sequence without a slot has to compute before its next one, those in the cache excepted."""
        cached = self.acquire_cached(sequence)
        self._pool.free(cached)
        return len(sequence.token_ids) - len(cached) * self._pool.block_size

    def is_computed_by_another(self, sequence: Sequence) -> bool:
        """Whether the next block that the sequence would fill is in the cache by now, from another with its prefix."""
        at = sequence.num_computed // self._pool.block_size
        return at < self._num_reusable(sequence) and all(
            self._pool.is_cached(hash) for hash in sequence.hashes(self._pool.block_size, at, at + 1)
        )

    def record_admitted(self, sequence: Sequence) -> None:
        """Counts the tokens that the sequence and its siblings found in the cache, on its first admission only."""
        if sequence.num_prefix_hit_tokens is not None:
            return
        self.num_prompt_tokens += len(sequence.request.prompt_ids)
        self.num_cached_tokens += sequence.num_computed
        for each in (sequence, *sequence.siblings):
            each.num_prefix_hit_tokens = sequence.num_computed

    def cache_blocks(self, sequence: Sequence, num_new: int = 0) -> None:
        """Caches the full blocks of known tokens that are computed by steps already sent, or by the step being built:
        its next `num_new` tokens. Draft tokens in flight do no harm: they are written behind all known tokens."""
        num_full = min(sequence.num_computed + num_new, len(sequence.token_ids)) // self._pool.block_size
        start = sequence.num_cached_blocks
        if num_full <= start or not self._is_on:
            return
        hashes = sequence.hashes(self._pool.block_size, start, num_full)
        for block, hash in zip(sequence.blocks[start:num_full], hashes, strict=True):
            self._pool.cache_block(block, hash, sequence.request.cache_salt)
        sequence.num_cached_blocks = num_full

    def _num_reusable(self, sequence: Sequence) -> int:
        """Full blocks that may come from the cache: the last token is always computed, because the next is sampled from
        it; and so are all tokens of a prompt whose log-probabilities were asked for."""
        if not self._is_on or sequence.request.sampling.prompt_logprobs:
            return 0
        return (len(sequence.token_ids) - 1) // self._pool.block_size
