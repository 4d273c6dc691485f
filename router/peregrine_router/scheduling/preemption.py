"""Preemption: a running sequence gives up its slot and blocks, and is recomputed later."""

from peregrine_router.scheduling.draft_budget import num_blocks_needed
from peregrine_router.scheduling.policy import Policy
from peregrine_router.scheduling.running_batch import RunningBatch
from peregrine_router.scheduling.sequence import Sequence


class Preemption:
    """Preempts the sequences that the policy names, where slots or blocks are short."""

    def __init__(self, batch: RunningBatch, policy: Policy) -> None:
        self.count = 0
        """Preemptions so far."""
        self._batch = batch
        self._policy = policy

    def preempt(self, sequence: Sequence) -> None:
        """Moves a running sequence to the head of its tenant's queue."""
        self._batch.release(sequence)
        self._policy.waiting.appendleft(sequence)
        self.count += 1

    def make_room_for_next(self) -> None:
        """Preempts for the next waiting request, if the policy allows it, until there is room or nobody is left."""
        running, newcomer = self._batch.sequences, self._policy.waiting.peek()
        if newcomer is None or not self._policy.may_preempt(newcomer, running):
            return
        while not self._batch.has_room(newcomer) and (victim := self._policy.victim(running, running)) is not None:
            self.preempt(victim)

    def grow(self, sequence: Sequence, max_draft_tokens: int) -> list[int] | None:
        """Blocks for the next token and draft tokens of a running sequence, if need be at the cost of newer ones; None
        if the sequence was preempted itself."""
        pool, running = self._batch.pool, self._batch.sequences
        while (blocks := pool.allocate(num_blocks_needed(pool, sequence, max_draft_tokens))) is None:
            # Older sequences may be in the step being built already.
            candidates = running[running.index(sequence) :]
            victim = self._policy.victim(candidates, running) or candidates[-1]
            self.preempt(victim)
            if victim is sequence:
                return None
        return blocks
