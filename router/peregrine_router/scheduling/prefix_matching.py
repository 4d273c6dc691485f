"""What of a sequence's beginning is in the cache, and what of it others can find there.

Full blocks of tokens that are known can be found by their hash as soon as the step that fills them is sent: shards
execute in order. Those that a chunk fills can be found within its very step, because in each layer a shard writes the K
and V of all of a step's tokens before any are read. A newcomer takes the longest run of them that its tokens begin
with, by reference: of requests that come at once with one new prefix, the first computes it.
"""

from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.sequence import Sequence


class PrefixMatcher:
    """The sequences' use of the pool's cached blocks; `is_on` False: none is ever found."""

    def __init__(self, pool: BlockPool, *, is_on: bool) -> None:
        self.num_cached_tokens = 0
        """Of all prompts so far, the tokens that were found in the cache."""
        self._pool = pool
        self._is_on = is_on

    def acquire_cached(self, sequence: Sequence) -> list[int]:
        """Cached blocks of what it begins with; each gains an owner."""
        return self._pool.acquire_cached(sequence.hashes(self._pool.block_size, 0, self._num_reusable(sequence)))

    def num_to_compute(self, sequence: Sequence) -> int:
        """Tokens of a sequence without a slot that stand before its next one, but for those in the cache."""
        cached = self.acquire_cached(sequence)
        self._pool.free(cached)
        return len(sequence.token_ids) - len(cached) * self._pool.block_size

    def is_computed_by_another(self, sequence: Sequence) -> bool:
        """Whether the next block that it would fill is in the cache: a prompt that begins like it was due before it."""
        at = sequence.num_computed // self._pool.block_size
        return at < self._num_reusable(sequence) and all(
            self._pool.is_cached(hash) for hash in sequence.hashes(self._pool.block_size, at, at + 1)
        )

    def record_admitted(self, sequence: Sequence) -> None:
        """The first time, what it and its siblings found in the cache is counted."""
        if sequence.num_prefix_hit_tokens is not None:
            return
        self.num_cached_tokens += sequence.num_computed
        for each in (sequence, *sequence.siblings):
            each.num_prefix_hit_tokens = sequence.num_computed

    def cache_blocks(self, sequence: Sequence, num_new: int = 0) -> None:
        """Full blocks of tokens that are known, and computed by a step that is sent, can be found from here on.

        So can those that the step being drafted computes, `num_new` of the tokens. With guesses too: those of a
        step in flight are written behind all tokens that are known.
        """
        num_full = min(sequence.num_computed + num_new, len(sequence.token_ids)) // self._pool.block_size
        start = sequence.num_cached_blocks
        if num_full <= start or not self._is_on:
            return
        hashes = sequence.hashes(self._pool.block_size, start, num_full)
        for block, hash in zip(sequence.blocks[start:num_full], hashes, strict=True):
            self._pool.cache_block(block, hash, sequence.request.cache_salt)
        sequence.num_cached_blocks = num_full

    def _num_reusable(self, sequence: Sequence) -> int:
        """Its full blocks, but the last token is computed in any case, for the one that follows it; and all tokens are
        whose log-probabilities were asked for."""
        if not self._is_on or sequence.request.sampling.prompt_logprobs:
            return 0
        return (len(sequence.token_ids) - 1) // self._pool.block_size
