"""The decodes of a step: running sequences whose prompts are computed gain a token each, or several by drafts."""

from peregrine_router.scheduling.draft_budget import DraftBudget, writes_to_shared
from peregrine_router.scheduling.policy import Policy
from peregrine_router.scheduling.preemption import Preemption
from peregrine_router.scheduling.running_batch import RunningBatch
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_builder import StepBuilder
from peregrine_router.scheduling.step_limits import StepLimits


class DecodeScheduler:
    """Adds decodes to steps, and gives them the blocks that they grow into."""

    def __init__(self, batch: RunningBatch, policy: Policy, preemption: Preemption, speculation: DraftBudget) -> None:
        self._batch = batch
        self._policy = policy
        self._preemption = preemption
        self._speculation = speculation

    def schedule(self, builder: StepBuilder, limits: StepLimits) -> None:
        """Adds the decodes of a step, its first rows."""
        # `num_known` spelled out: this runs for every sequence in every step.
        decodes = [
            s for s in self._batch.sequences if s.num_computed + 1 == len(s.token_ids) + s.num_pending < s.max_total
        ]
        decodes = self._policy.select_decodes(decodes, limits)
        if not (self._policy.waiting and self._batch.num_free_slots > 0):
            builder.max_draft_tokens = self._speculation.max_draft_tokens(
                builder.step_id, decodes, self._batch.sequences, self._batch.pool
            )
        for sequence in decodes:
            if (
                sequence.num_computed < sequence.num_exclusive_tokens
                and builder.max_draft_tokens == sequence.num_draft_in_flight == 0
            ):
                builder.scheduled.append(sequence)
            # Otherwise it may have been preempted for an older sequence in this very loop.
            elif (
                sequence.slot >= 0 and (blocks := self._preemption.grow(sequence, builder.max_draft_tokens)) is not None
            ):
                self._add(builder, sequence, blocks)
        builder.close_decodes()

    def _add(self, builder: StepBuilder, sequence: Sequence, blocks: list[int]) -> None:
        """Schedules a decode with new blocks, the first of them a copy if its token would change a shared block."""
        pool = self._batch.pool
        if blocks and writes_to_shared(pool, sequence):
            copy, *blocks = blocks
            builder.copies.append((len(builder.scheduled), copy))
            pool.free([sequence.blocks.pop()])
            sequence.blocks.append(copy)
        sequence.blocks += blocks
        sequence.num_exclusive_tokens = len(sequence.blocks) * pool.block_size
        builder.give_blocks(blocks)
        builder.scheduled.append(sequence)
