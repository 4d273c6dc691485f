"""The prompts of a step: chunks of those that are being computed and of waiting requests, and forks behind them."""

from collections import deque
from collections.abc import Collection
from operator import attrgetter

from peregrine_router.scheduling.policy import Policy
from peregrine_router.scheduling.running_batch import RunningBatch
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_builder import StepBuilder

_virtual_deadline = attrgetter("virtual_deadline")


class PrefillScheduler:
    """Adds chunks of prompts to steps, within the budget that decodes leave."""

    def __init__(self, batch: RunningBatch, policy: Policy) -> None:
        self._batch = batch
        self._policy = policy

    def prefilling(self) -> list[Sequence]:
        """The sequences whose prompts are being computed, the earliest virtual deadline first. Their blocks were all
        allocated on admission."""
        return sorted(
            [each for each in self._batch.sequences if len(each.token_ids) - each.num_computed > 1],
            key=_virtual_deadline,
        )

    def schedule(self, builder: StepBuilder, prefilling: list[Sequence], paused_tenants: Collection[str]) -> None:
        """Continues and admits prompts for as long as budget, slots and blocks last. Then forks the siblings of those
        that the step completes."""
        left = deque(each for each in prefilling if each.slot >= 0 and each.request.tenant not in paused_tenants)
        is_open = True
        while builder.budget > 0:
            newcomer = self._policy.waiting.peek(paused_tenants) if is_open else None
            if newcomer is not None and (not left or self._overtakes(newcomer, left[0])):
                is_open = self._admit(builder, newcomer)
            elif left:
                self._continue_prefill(builder, left.popleft())
            else:
                break
        self._fork(builder)

    def _overtakes(self, newcomer: Sequence, prefilling: Sequence) -> bool:
        return self._policy.overtakes(newcomer, prefilling, self._batch.sequences)

    def _admit(self, builder: StepBuilder, sequence: Sequence) -> bool:
        """Starts the next waiting sequence. False if there is no room for it."""
        if not self._batch.has_room(sequence):
            return False
        self._policy.waiting.take(sequence)
        self._start_prefill(builder, sequence, self._batch.prefixes.acquire_cached(sequence))
        return True

    def _continue_prefill(self, builder: StepBuilder, sequence: Sequence) -> None:
        """Adds the next chunk. If another sequence has computed it meanwhile, starts again from the prefix cache."""
        prefixes = self._batch.prefixes
        if prefixes.is_computed_by_another(sequence):
            # Acquired before its own blocks are released, which the cache may then evict.
            cached = prefixes.acquire_cached(sequence)
            self._batch.release(sequence)
            self._start_prefill(builder, sequence, cached)
        else:
            self._add_chunk(builder, sequence, [])

    def _start_prefill(self, builder: StepBuilder, sequence: Sequence, cached: list[int]) -> None:
        self._batch.admit(sequence, cached)
        builder.new.append(sequence)
        self._add_chunk(builder, sequence, sequence.blocks)

    def _add_chunk(self, builder: StepBuilder, sequence: Sequence, new_blocks: list[int]) -> None:
        """Adds as many of its tokens as the budget allows. Sequences admitted next find the blocks that this fills."""
        count = min(len(sequence.token_ids) - sequence.num_computed, builder.budget)
        builder.add(sequence, count, new_blocks)
        self._batch.prefixes.cache_blocks(sequence, count)

    def _fork(self, builder: StepBuilder) -> None:
        """Forks the siblings of every prompt that the step completes."""
        owners = [pair for pair in zip(builder.scheduled, builder.num_tokens, strict=True) if pair[0].siblings]
        for owner, num_tokens in owners:
            if owner.num_computed + num_tokens == len(owner.token_ids):
                builder.forks += [(fork, owner) for fork in self._batch.fork(owner)]
