"""Speculative decoding: which sequences guess how many of their next tokens, and which guesses were right.

A decode with d guesses becomes 1 + d decodes of one token, each behind the last. The token that is sampled after each
is the one that would be sampled without guesses, as long as all guesses before it were right: the random number
depends on the position alone. So a sequence gains the tokens up to the first wrong guess, and those are its tokens.

How often a sequence's guesses were right says how likely the next ones are, and the router what they cost; guesses are
made that are worth it. A sequence whose are not rests, and tries one now and then, the more seldom the more of those
are wrong too.

Every rank guesses alike: what is decided depends on the steps and the tokens, and never on this rank's time.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peregrine_server.protocol import PROBE_STEPS
from peregrine_server.speculation.draft_lengths import choose_draft_lengths
from peregrine_server.speculation.prompt_lookup import propose_ngram
from peregrine_server.speculation.token_mirror import HostTokenMirror

if TYPE_CHECKING:
    from peregrine_server.sampling.host_copy import PendingCopy

FIRST_CHANCE = 0.5
"""Of a guess of the first sequence. The next begin with what the guesses of those before were."""
COMMON_GAIN = 0.05
"""Of a sequence's guesses of one step in that."""
FAIR_CHANCE = 0.2
"""Of those before, with which a sequence finds out for itself what its guesses are worth."""
FIRST_GAINS = (0.5, 0.33)
GAIN = 0.25
"""Of one guess in the chance of the next: of the first two, and of all others. So large that a text that begins to
repeat is noticed in a few steps, and a guess that was right by accident gone as soon."""
PATIENCE = 4
"""Steps in a row in which nothing is found after which a sequence rests."""
MAX_LOOK_STEPS = 64
"""It then looks again in every 16th step, later every 32nd, at last in one of so many: all in the same ones."""
MAX_PROBE_STEPS = 256
"""A sequence whose guesses are not worth it guesses one token in every 16th step; half as often whenever that is wrong,
at last in one of so many."""
FIRST_PROBE_STEPS = 64
"""Instead of 16 for one that has not guessed yet, where those before it were wrong."""

_Ints = NDArray[np.int64]
_NOTHING = np.zeros(0, dtype=np.int64)


class Speculation:
    """How well the tokens of each slot are guessed."""

    def __init__(self, mirror: HostTokenMirror) -> None:
        self._mirror, max_batch_size = mirror, mirror.num_slots
        self._common_chance = FIRST_CHANCE
        self._chances = [FIRST_CHANCE] * max_batch_size
        """Of the next guess to be right, if those before it are."""
        self._num_seen = [0] * max_batch_size
        """Guesses that went into that."""
        self._num_misses = [0] * max_batch_size
        """Steps in a row in which nothing was found."""
        self._pauses = [1] * max_batch_size
        """A slot guesses in every so many steps."""

    def add(self, slot: int, token_ids: _Ints) -> None:
        """A sequence of int64[L] takes a slot."""
        self._mirror.add(slot, token_ids)
        self._occupy(slot)

    def fork(self, slot: int, parent: int, length: int) -> None:
        """A copy of another sequence of `length` tokens, all of them its prompt's, takes a slot."""
        self._mirror.fork(slot, parent, length)
        self._occupy(slot)

    def note(self, slots: _Ints, positions: _Ints, copying: "PendingCopy") -> None:
        """The tokens of a step are on their way: int64[S] slots, and where the token of each stands."""
        self._mirror.note(slots, positions, copying)

    def guesses_in(self, step_id: int, slots: list[int]) -> bool:
        """Whether one of these slots guesses in this step if it may: then what was sampled before is waited for."""
        return any(step_id % self._pauses[slot] == 0 for slot in slots)

    def guess(
        self, step_id: int, slots: list[int], lengths: list[int], most: list[int], cost: tuple[float, float]
    ) -> list[_Ints]:
        """For each of N slots of so many tokens, at most `most` guesses of the next ones; [] if there are none at all.

        `cost` as in `choose_draft_lengths`.
        """
        self._mirror.wait()
        found = [
            self._look_up(slot, length, count) if count > 0 and step_id % self._pauses[slot] == 0 else _NOTHING
            for slot, length, count in zip(slots, lengths, most, strict=True)
        ]
        if not any(map(len, found)):
            return []
        chances = [self._chances[slot] for slot in slots]
        counts = choose_draft_lengths(chances, list(map(len, found)), len(slots), cost)
        rows = zip(slots, found, counts, strict=True)
        guesses = [tokens[: self._decide(slot, count)] if len(tokens) else tokens for slot, tokens, count in rows]
        return guesses if any(map(len, guesses)) else []

    def verify(self, slots: _Ints, guesses: _Ints, token_ids: _Ints) -> NDArray[np.intp]:
        """Which of int64[S] rows yield a token: those of a slot up to its first wrong guess.

        `guesses` as in `ForwardInput`.
        """
        kept, tried = accepted_rows(guesses, token_ids), slots[guesses >= 0]
        gained = np.bincount(slots[kept], minlength=len(self._pauses))
        for slot, count in zip(*np.unique(tried, return_counts=True), strict=True):
            self._learn(int(slot), int(count), int(gained[slot]) - 1)
        return kept

    def _occupy(self, slot: int) -> None:
        self._chances[slot], self._num_seen[slot], self._num_misses[slot] = self._common_chance, 0, 0
        self._pauses[slot] = 1

    def _look_up(self, slot: int, length: int, most: int) -> _Ints:
        found = propose_ngram(self._mirror.of(slot, length), most)
        self._num_misses[slot] = 0 if len(found) else self._num_misses[slot] + 1
        if self._num_misses[slot] >= PATIENCE:
            self._pauses[slot] = min(max(2 * self._pauses[slot], PROBE_STEPS), MAX_LOOK_STEPS)
        return found

    def _decide(self, slot: int, num_worth: int) -> int:
        """How many are guessed where so many are worth it: one at least by who has rested, or guesses for the first
        time, unless those before it were wrong nearly always."""
        is_first = not self._num_seen[slot]
        if num_worth:
            self._pauses[slot] = 1
        elif self._pauses[slot] == 1 and not (is_first and self._common_chance >= FAIR_CHANCE):
            self._pauses[slot] = FIRST_PROBE_STEPS if is_first else PROBE_STEPS
            return 0
        return max(num_worth, 1)

    def _learn(self, slot: int, tried: int, right: int) -> None:
        for outcome in [1.0] * right + [0.0] * (right < tried):
            seen = self._num_seen[slot]
            gain = FIRST_GAINS[seen] if seen < len(FIRST_GAINS) else GAIN
            self._chances[slot] += gain * (outcome - self._chances[slot])
            self._num_seen[slot] += 1
        self._common_chance += COMMON_GAIN * (right / tried - self._common_chance)
        if right:
            self._pauses[slot] = 1
        elif self._pauses[slot] > 1:
            self._pauses[slot] = min(2 * self._pauses[slot], MAX_PROBE_STEPS)


def accepted_rows(guesses: _Ints, token_ids: _Ints) -> NDArray[np.intp]:
    """The rows behind right guesses alone. A row without a guess (-1) is the last one of its sequence."""
    kept, is_right = [], True
    for row, (guess, token_id) in enumerate(zip(guesses.tolist(), token_ids.tolist(), strict=True)):
        if is_right:
            kept.append(row)
        is_right = guess < 0 or (is_right and guess == token_id)
    return np.array(kept, dtype=np.intp)
