"""The limit on draft tokens in a step, and the accounting of tokens and blocks when drafts are accepted.

Draft tokens neither delay a prompt nor preempt a sequence: only steps that consist of decodes have them, few enough to
make the step hardly longer, and only while there are blocks to spare.

The number of accepted tokens is known when the result is back. Until then a sequence has computed at least
`num_computed` tokens and at most `num_draft_in_flight` more. It has blocks for all of them and the next, but never more
than its maximum length of m tokens, prompt included, needs: say c >= m positions. That suffices, because at most one
step is in flight when another is scheduled. Before the step in flight at most m - 3 tokens were computed, or its token
would be the last and the sequence in no other step. Drafts end before the last position (see `Step`), so that at most
c - 1 tokens are computed with that step, and the next step's token has a position.
"""

from collections import Counter

from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_cost import VerificationCostModel
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import PROBE_INTERVAL

PATIENCE = 4
"""Speculative steps in a row without a draft after which only every `PROBE_INTERVAL`-th step speculates: looking for a
draft and finding none then costs a sixteenth."""
PLAIN_EVERY = 128
"""Interval of the steps that never speculate: their times are what the cost of verification is compared with."""


class DraftBudget:
    """Limits draft tokens step by step, and counts the proposed and the accepted ones."""

    def __init__(self, max_per_sequence: int, max_rows: int) -> None:
        """`max_per_sequence`: draft tokens of a decode. `max_rows`: decodes and draft tokens of a step."""
        self.num_draft_tokens = 0
        self.num_accepted = 0
        self._max_per_sequence = max_per_sequence
        self._max_rows = max_rows
        self.cost = VerificationCostModel()
        self._newest: Sequence | None = None
        self._num_idle = 0
        """Speculative steps in a row without a draft."""

    def max_draft_tokens(self, step_id: int, decodes: list[Sequence], running: list[Sequence], pool: BlockPool) -> int:
        """Draft tokens of each decode, in a step for which no request can be admitted."""
        count = min(self._max_per_sequence, self._max_rows // max(len(decodes), 1) - 1)
        if count <= 0 or self._is_plain(step_id, running[-1] if running else None):
            return 0
        # Forks start where their owner's prompt ends, and not behind draft tokens.
        is_prompt = (sequence.siblings or sequence.num_computed < sequence.num_known - 1 for sequence in running)
        if any(is_prompt):
            return 0
        # One block more for each sequence: whatever is accepted, the next step finds enough.
        missing = sum(num_blocks_needed(pool, sequence, count) for sequence in decodes) + len(running)
        return count if missing <= pool.num_free else 0

    def _is_plain(self, step_id: int, newest: Sequence | None) -> bool:
        """Whether this step does not speculate: the backoff lasts, or the time of a plain step is to be measured. A
        newly admitted sequence ends the backoff."""
        if newest is not self._newest:
            self._newest, self._num_idle = newest, 0
        if self._num_idle >= PATIENCE:
            return step_id % PROBE_INTERVAL != 0
        return step_id % PLAIN_EVERY == PLAIN_EVERY - 1

    def settle(
        self, sequences: dict[int, Sequence], slots: list[int], max_draft_tokens: int, num_draft_tokens: int
    ) -> None:
        """Counts the accepted tokens of a step as pending and computed like any other. `sequences`: by slot. `slots`:
        the slot of each token of the result. `max_draft_tokens`: those that each slot might have had;
        `num_draft_tokens`: those that all had."""
        num_gained = Counter(slots)
        self.num_draft_tokens += num_draft_tokens
        self._num_idle = 0 if num_draft_tokens else self._num_idle + 1
        for slot, sequence in sequences.items():
            num_accepted = num_gained[slot] - 1
            sequence.num_draft_in_flight -= max_draft_tokens
            sequence.num_pending += num_accepted
            sequence.num_computed += num_accepted
            self.num_accepted += num_accepted


def num_blocks_needed(pool: BlockPool, sequence: Sequence, max_draft_tokens: int) -> int:
    """Blocks to allocate for the next token and draft tokens, the copy of a shared block included."""
    most = min(sequence.num_computed + sequence.num_draft_in_flight + 1 + max_draft_tokens, sequence.max_total)
    return max(pool.num_blocks_for(most) - len(sequence.blocks), 0) + writes_to_shared(pool, sequence)


def writes_to_shared(pool: BlockPool, sequence: Sequence) -> bool:
    """Whether the next token would be written to a shared block. Only the last block can be one: earlier ones were
    copied before they were written to."""
    at = sequence.num_computed // pool.block_size
    return at < len(sequence.blocks) and pool.is_shared(sequence.blocks[at])
