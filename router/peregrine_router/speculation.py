"""How many tokens a step's decodes may guess, and what guesses mean for the account of tokens and blocks.

Guesses neither delay a prompt nor preempt anybody: they are made in steps of decodes alone, as many as make the step
hardly longer, and while there are blocks to spare.

How many were right is known when the answer is back. Until then a sequence has computed `num_computed` tokens at least
and `num_extra` more at most. It has blocks for all of them and the next one, but never for more than its longest answer
of m tokens, prompt included, needs: of c >= m places, say. That suffices, as at most one step is in flight when another
is scheduled. Before the step in flight at most m - 3 tokens were computed, or its token would be the last and the
sequence in no other step. Guesses go no further than the last place but one (see `Step`), so that at most c - 1 are
computed with that step; and the token of the next has a place.
"""

from collections import Counter
from collections.abc import Collection

from peregrine_router.blocks import BlockPool
from peregrine_router.sequence import Sequence


class Speculation:
    """The bounds on guesses, and how they went."""

    def __init__(self, most: int, max_rows: int) -> None:
        """Up to `most` guesses a decode, where decodes and guesses together are `max_rows` at most."""
        self.num_guessed = 0
        self.num_right = 0
        self._most = most
        self._max_rows = max_rows

    def num_guesses(self, decodes: Collection[Sequence], running: Collection[Sequence], pool: BlockPool) -> int:
        """How many tokens each of the decodes may guess if nobody waits to be admitted."""
        count = min(self._most, self._max_rows // max(len(decodes), 1) - 1)
        if count <= 0:
            return 0
        # Forks begin where their leader's prompt ends, and not behind guesses.
        if any(sequence.followers or sequence.num_computed < sequence.num_known - 1 for sequence in running):
            return 0
        # One block more for everybody: whatever is guessed right, the next step finds them.
        missing = sum(num_missing(pool, sequence, count) for sequence in decodes) + len(running)
        return count if missing <= pool.num_free else 0

    def settle(self, by_slot: dict[int, Sequence], slots: list[int], most: int, num_guessed: int) -> None:
        """The answer to a step with up to `most` guesses a slot is back, its tokens in `slots`: those that were guessed
        right are pending and computed like any other."""
        num_gained = Counter(slots)
        self.num_guessed += num_guessed
        for slot, sequence in by_slot.items():
            num_right = num_gained[slot] - 1
            sequence.num_extra -= most
            sequence.num_pending += num_right
            sequence.num_computed += num_right
            self.num_right += num_right


def num_missing(pool: BlockPool, sequence: Sequence, num_guesses: int) -> int:
    """Blocks to take before the next token and guesses are computed, the copy of a shared one among them."""
    most = min(sequence.num_computed + sequence.num_extra + 1 + num_guesses, sequence.max_total)
    return max(pool.num_blocks_for(most) - len(sequence.blocks), 0) + writes_to_shared(pool, sequence)


def writes_to_shared(pool: BlockPool, sequence: Sequence) -> bool:
    """Whether the next token comes into a block of others as well. Then that is the last, or it had been copied."""
    at = sequence.num_computed // pool.block_size
    return at < len(sequence.blocks) and pool.is_shared(sequence.blocks[at])
