"""The running sequences with their slots and KV blocks."""

from collections import deque

from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_router.scheduling.prefix_matching import PrefixMatcher
from peregrine_router.scheduling.sequence import Sequence


class RunningBatch:
    """Gives slots and blocks to sequences and takes them back."""

    def __init__(self, pool: BlockPool, prefixes: PrefixMatcher, max_size: int) -> None:
        """`max_size`: the number of slots."""
        self.pool = pool
        self.prefixes = prefixes
        self.sequences: list[Sequence] = []
        """In order of admission."""
        self.in_flight: deque[StepInFlight] = deque()
        """The oldest first. Kept here because a sequence that leaves its slot leaves all of them as well."""
        self._free_slots = list(range(max_size - 1, -1, -1))
        self._freed: list[int] = []
        """Slots that the shards are to free with the next step."""

    @property
    def num_free_slots(self) -> int:
        """Slots that are neither occupied nor reserved for forks."""
        return len(self._free_slots) - self._num_reserved()

    def has_room(self, sequence: Sequence) -> bool:
        """Whether there are slots for a waiting sequence and its siblings, and blocks for its tokens that are not in
        the prefix cache."""
        reserved = self._num_reserved() + len(sequence.siblings)
        if reserved >= len(self._free_slots):
            return False
        cached = self.prefixes.acquire_cached(sequence)
        missing = self.pool.num_blocks_for(len(sequence.token_ids)) - len(cached)
        # A spare block for each running sequence, or the newcomer would be preempted as soon as they grow.
        spare = len(self.sequences) + reserved if self.sequences else 0
        # Counted while the cached blocks are acquired: idle ones then no longer count as free.
        has_room = missing + spare <= self.pool.num_free
        self.pool.free(cached)
        return has_room

    def admit(self, sequence: Sequence, cached: list[int]) -> None:
        """Gives the sequence a slot, and blocks for all of its tokens. `cached`: acquired blocks of its first tokens,
        which count as computed."""
        fresh = self.pool.allocate(self.pool.num_blocks_for(len(sequence.token_ids)) - len(cached))
        assert fresh is not None, "admitted without room"
        sequence.slot, sequence.blocks = self._free_slots.pop(), cached + fresh
        sequence.num_cached_blocks = len(cached)
        sequence.num_computed = len(cached) * self.pool.block_size
        self.prefixes.record_admitted(sequence)
        self.sequences.append(sequence)

    def fork(self, owner: Sequence) -> list[Sequence]:
        """Gives each sibling a slot and a share of the blocks of its prompt owner, whose prompt the step being built
        completes. Returns the siblings."""
        forks, owner.siblings = owner.siblings, []
        for fork in forks:
            self.pool.share(owner.blocks)
            fork.prompt_owner, fork.slot, fork.blocks = None, self._free_slots.pop(), list(owner.blocks)
            fork.num_computed = len(owner.token_ids)
            fork.num_cached_blocks, fork.block_hashes = owner.num_cached_blocks, list(owner.block_hashes)
            self.sequences.append(fork)
        owner.num_exclusive_tokens = 0
        return forks

    def release(self, sequence: Sequence) -> None:
        """Takes slot and blocks back. The sequence leaves the steps in flight: their results no longer concern it."""
        self.prefixes.cache_blocks(sequence)
        self.sequences.remove(sequence)
        for step in self.in_flight:
            step.sequences.pop(sequence.slot, None)
        self.pool.free(sequence.blocks)
        self._freed.append(sequence.slot)
        self._free_slots.append(sequence.slot)
        sequence.slot, sequence.blocks = -1, []
        sequence.num_computed = sequence.num_pending = sequence.num_draft_in_flight = 0
        sequence.num_cached_blocks = sequence.num_exclusive_tokens = 0

    def take_freed_slots(self) -> list[int]:
        """Slots released since the last call."""
        freed, self._freed = self._freed, []
        return freed

    def check_integrity(self) -> None:
        """Raises AssertionError unless slots, blocks and the running sequences agree."""
        self.pool.check_integrity(sequence.blocks for sequence in self.sequences)
        slots = [sequence.slot for sequence in self.sequences]
        assert len(set(slots)) == len(slots), "a slot has two owners"
        assert not set(slots) & set(self._free_slots), "a slot is free and owned"
        assert not any(s.siblings and s.num_generated for s in self.sequences), "a prompt owner left its siblings"
        assert self._num_reserved() <= len(self._free_slots), "a sibling's slot was given away"
        for sequence in self.sequences:
            sequence.check_integrity(self.pool.block_size)
            assert sequence.num_draft_in_flight == 0 or self.in_flight, "draft tokens of no step in flight"

    def _num_reserved(self) -> int:
        """Free slots reserved for the siblings of running prompt owners."""
        return sum(len(sequence.siblings) for sequence in self.sequences)
