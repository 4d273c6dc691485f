"""Whether a step fits the batch: a wrong one must end the shard, not reach another sequence's memory.

The kernels trust their indices, and a negative one is another slot's or block's in numpy.
"""

import numpy as np
from numpy.typing import NDArray

from peregrine_server.batch.batch import Batch
from peregrine_server.protocol import NewSequence, ShardConfig, Step, unpack

_Ints = NDArray[np.int64]


class WrongStep(ValueError):
    """The router sent a step that this shard cannot execute; the message is one line for the operator."""


class StepCheck:
    """Checks each step before anything of it is applied. That of 256 decodes takes 15 microseconds.

    What a sequence's tokens are chosen by is not checked: a processor that fails, fails its sequence.
    """

    def __init__(self, batch: Batch, config: ShardConfig, num_blocks: int, vocab_size: int) -> None:
        self._batch = batch
        self._config = config
        self._num_blocks = num_blocks
        self._vocab_size = vocab_size

    def __call__(self, step: Step) -> None:
        """Raises WrongStep."""
        try:
            fault = self._fault(step)
        except ValueError:  # bytes that are no whole numbers
            fault = "with a part of a number"
        if fault:
            raise WrongStep(f"the router sent step {step.id} {fault}: is its version the shard's?")

    def _fault(self, step: Step) -> str:
        slots = unpack(step.slots).astype(np.int64)
        counts = unpack(step.num_tokens)
        if not (self._are_slots(slots) and self._are_slots(unpack(step.freed))):
            return "for a slot that there is not"
        if not 0 <= step.num_decodes <= len(slots) or step.num_decodes + len(counts) != len(slots):
            return "with other counts of tokens than of slots"
        if not 0 <= step.max_draft_tokens <= self._config.max_draft_tokens:
            return "with more draft tokens than --speculate allows"
        if (step.new or step.forks) and (fault := self._fault_of_new(step)):
            return fault
        if (step.new_blocks or step.block_rows or step.copy_blocks or step.copy_rows) and (
            fault := self._fault_of_blocks(step, len(slots))
        ):
            return fault
        return self._fault_of_rows(step, slots, counts)

    def _fault_of_new(self, step: Step) -> str:
        taken = [new.slot for new in step.new] + [fork.slot for fork in step.forks]
        if not all(0 <= slot < self._config.max_batch_size for slot in taken) or len({*taken}) != len(taken):
            return "with a new sequence in a slot that there is not, or in another's"
        return next((fault for new in step.new if (fault := self._fault_of_sequence(new))), "")

    def _fault_of_sequence(self, new: NewSequence) -> str:
        ids = unpack(new.token_ids)
        if not 0 < len(ids) <= self._config.max_total_tokens or not 0 <= new.prompt_length <= len(ids):
            return "with a sequence of a length that no sequence has"
        if not 0 <= new.num_cached < len(ids):
            return "with a sequence of which nothing is left to compute"
        return "" if _are_within(ids, self._vocab_size) else "with tokens outside of the vocabulary"

    def _fault_of_blocks(self, step: Step, num_rows: int) -> str:
        for rows, blocks in ((step.block_rows, step.new_blocks), (step.copy_rows, step.copy_blocks)):
            if len(rows) != len(blocks):
                return "with other counts of blocks than of sequences that take them"
            if not _are_within(unpack(rows), num_rows) or not _are_within(unpack(blocks), self._num_blocks):
                return "with a block that there is not, or for a sequence that is not scheduled"
        return ""

    def _fault_of_rows(self, step: Step, slots: _Ints, counts: NDArray[np.int32]) -> str:
        """The last checks, on the lengths that the slots will have once the step's new sequences and blocks are."""
        computed, lengths, num_blocks = self._batch.progress(slots)
        if step.new:
            taken = {new.slot: new for new in step.new}
            for row, slot in enumerate(slots.tolist()):
                if (new := taken.get(slot)) is not None:
                    computed[row], lengths[row], num_blocks[row] = new.num_cached, len(new.token_ids) // 4, 0
        if step.copy_rows and (num_blocks[unpack(step.copy_rows)] < 1).any():
            return "with a copy of a block for a sequence that has none"
        if step.block_rows:
            num_blocks += np.bincount(unpack(step.block_rows), minlength=len(slots))
        if (num_blocks > self._batch.max_blocks).any():
            return "with more blocks than a sequence may have"
        computed[: step.num_decodes] += 1
        computed[step.num_decodes :] += counts
        if len(counts) and int(counts.min()) < 1:
            return "with a sequence that computes nothing"
        if (computed > np.minimum(lengths, num_blocks * self._config.block_size)).any():
            return "with tokens that are not known, or have no block"
        return ""

    def _are_slots(self, slots: NDArray[np.integer]) -> bool:
        return _are_within(slots, self._config.max_batch_size)


def _are_within(values: NDArray[np.integer], bound: int) -> bool:
    """Whether all values are at least 0 and under a bound."""
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < bound)
