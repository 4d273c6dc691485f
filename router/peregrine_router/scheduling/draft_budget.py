"""How many tokens a step's decodes may guess, and what guesses mean for the account of tokens and blocks.

Guesses neither delay a prompt nor preempt anybody: they are made in steps of decodes alone, as many as make the step
hardly longer, and while there are blocks to spare.

How many were right is known when the answer is back. Until then a sequence has computed `num_computed` tokens at least
and `num_draft_in_flight` more at most. It has blocks for all of them and the next, but never for more than its longest
answer of m tokens, prompt included, needs: of c >= m places, say. That suffices, as at most one step is in flight when
another is scheduled. Before the step in flight at most m - 3 tokens were computed, or its token would be the last and
the sequence in no other step. Guesses go no further than the last place but one (see `Step`), so that at most c - 1 are
computed with that step; and the token of the next has a place.
"""

from collections import Counter

from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_cost import VerificationCostModel
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import PROBE_INTERVAL

PATIENCE = 4
"""Steps in a row in which nothing was guessed after which none is allowed to, but for those in which shards look again:
what finding nothing costs, it then costs one time in sixteen."""
PLAIN_EVERY = 128
"""One step in so many guesses nothing: what guesses cost is known by comparison."""


class DraftBudget:
    """The bounds on guesses, and how they went."""

    def __init__(self, most: int, max_rows: int) -> None:
        """Up to `most` guesses a decode, where decodes and guesses together are `max_rows` at most."""
        self.num_draft_tokens = 0
        self.num_accepted = 0
        self._most = most
        self._max_rows = max_rows
        self.cost = VerificationCostModel()
        self._newest: Sequence | None = None
        self._num_idle = 0
        """Steps in a row that might guess, and did not."""

    def max_draft_tokens(self, step_id: int, decodes: list[Sequence], running: list[Sequence], pool: BlockPool) -> int:
        """How many tokens each of the decodes may guess if nobody waits to be admitted."""
        count = min(self._most, self._max_rows // max(len(decodes), 1) - 1)
        if count <= 0 or self._backs_off_in(step_id, running[-1] if running else None):
            return 0
        # Forks begin where their prompt_owner's prompt ends, and not behind guesses.
        is_prompt = (sequence.siblings or sequence.num_computed < sequence.num_known - 1 for sequence in running)
        if any(is_prompt):
            return 0
        # One block more for everybody: whatever is guessed right, the next step finds them.
        missing = sum(num_blocks_needed(pool, sequence, count) for sequence in decodes) + len(running)
        return count if missing <= pool.num_free else 0

    def _backs_off_in(self, step_id: int, newest: Sequence | None) -> bool:
        """Whether nothing is to be gained in this step: all sequences rest, or the time of one without guesses is due
        to be measured. Who is new finds its shard awake."""
        if newest is not self._newest:
            self._newest, self._num_idle = newest, 0
        if self._num_idle >= PATIENCE:
            return step_id % PROBE_INTERVAL != 0
        return step_id % PLAIN_EVERY == PLAIN_EVERY - 1

    def settle(self, by_slot: dict[int, Sequence], slots: list[int], most: int, num_draft_tokens: int) -> None:
        """The answer to a step with up to `most` guesses a slot is back, its tokens in `slots`: those that were guessed
        right are pending and computed like any other."""
        num_gained = Counter(slots)
        self.num_draft_tokens += num_draft_tokens
        self._num_idle = 0 if num_draft_tokens else self._num_idle + 1
        for slot, sequence in by_slot.items():
            num_accepted = num_gained[slot] - 1
            sequence.num_draft_in_flight -= most
            sequence.num_pending += num_accepted
            sequence.num_computed += num_accepted
            self.num_accepted += num_accepted


def num_blocks_needed(pool: BlockPool, sequence: Sequence, max_draft_tokens: int) -> int:
    """Blocks to take before the next token and guesses are computed, the copy of a shared one among them."""
    most = min(sequence.num_computed + sequence.num_draft_in_flight + 1 + max_draft_tokens, sequence.max_total)
    return max(pool.num_blocks_for(most) - len(sequence.blocks), 0) + writes_to_shared(pool, sequence)


def writes_to_shared(pool: BlockPool, sequence: Sequence) -> bool:
    """Whether the next token comes into a block of others as well. Then that is the last, or it had been copied."""
    at = sequence.num_computed // pool.block_size
    return at < len(sequence.blocks) and pool.is_shared(sequence.blocks[at])
