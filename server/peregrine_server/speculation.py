"""Speculative decoding: which sequences guess how many of their next tokens, and which guesses were right.

A decode with d guesses becomes 1 + d decodes of one token, each behind the last. The token that is sampled after each
is the one that would be sampled without guesses, as long as all guesses before it were right: the random number
depends on the position alone. So a sequence gains the tokens up to the first wrong guess, and those are its tokens.

Every rank guesses alike: what is decided depends on the steps and the tokens, and never on time.
"""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peregrine_server.lookup import lookup

if TYPE_CHECKING:
    from peregrine_server.copyout import Copying

MAX_GUESSES = 16
FIRST_GUESSES = 2
PATIENCE = 4
"""Steps in which nothing was guessed right after which a sequence rests."""
PROBE_STEPS = 16
"""Resting sequences guess again in every so many steps, all in the same one: on text that misleads, one step in sixteen
has a few more rows, and on CUDA is waited for."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Arriving:
    """Sampled tokens on their way to the host."""

    slots: _Ints
    positions: _Ints
    copying: "Copying"


class Speculation:
    """The tokens of every slot on the host, as far as they are there, and how well they were guessed."""

    def __init__(self, max_batch_size: int, max_total_tokens: int) -> None:
        self._tokens = np.zeros((max_batch_size + 1, max_total_tokens + 1), dtype=np.int32)
        """[slots, positions]; one row more, for what arrives for nobody."""
        self._arriving: deque[_Arriving] = deque()
        self._num_guesses: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        """How many of each slot's tokens are worth guessing, going by its last guesses."""
        self._num_misses: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        """In how many steps in a row nothing was guessed right."""

    def add(self, slot: int, token_ids: _Ints) -> None:
        """A sequence of int64[L] takes a slot."""
        self._occupy(slot)
        self._tokens[slot, : len(token_ids)] = token_ids

    def fork(self, slot: int, parent: int, length: int) -> None:
        """A copy of another sequence of `length` tokens, all of them its prompt's, takes a slot."""
        self._occupy(slot)
        self._tokens[slot, :length] = self._tokens[parent, :length]

    def note(self, slots: _Ints, positions: _Ints, copying: "Copying") -> None:
        """The tokens of a step are on their way: int64[S] slots, and where the token of each stands."""
        while self._arriving and self._arriving[0].copying.is_done:
            self._take()
        self._arriving.append(_Arriving(slots.copy(), positions, copying))

    def guesses_in(self, step_id: int, slots: _Ints) -> bool:
        """Whether one of these slots guesses in this step if it may: then what was sampled before is waited for."""
        return bool(len(slots)) and (step_id % PROBE_STEPS == 0 or bool((self._num_misses[slots] < PATIENCE).any()))

    def guess(self, step_id: int, slots: _Ints, lengths: _Ints, most: _Ints) -> list[NDArray[np.int32]]:
        """For each of int64[N] slots of so many tokens, at most `most` guesses of the next ones; all may be empty."""
        nothing = np.zeros(0, dtype=np.int32)
        wanted = np.minimum(most, self._num_guesses[slots])
        if step_id % PROBE_STEPS:
            wanted = np.where(self._num_misses[slots] < PATIENCE, wanted, 0)
        if not (wanted > 0).any():
            return [nothing] * len(slots)
        while self._arriving:
            self._take()
        rows = zip(slots.tolist(), lengths.tolist(), wanted.tolist(), strict=True)
        guesses = [lookup(self._tokens[s, :n], count) if count > 0 else nothing for s, n, count in rows]
        for slot, count, found in zip(slots.tolist(), wanted.tolist(), guesses, strict=True):
            if count > 0 and not len(found):
                self._learn(slot, 0, 0)
        return guesses

    def verify(self, slots: _Ints, guesses: _Ints, token_ids: _Ints) -> NDArray[np.intp]:
        """Which of int64[S] rows yield a token: those of a slot up to its first wrong guess.

        `guesses` as in `StepWork`.
        """
        kept, tried = right_rows(guesses, token_ids), slots[guesses >= 0]
        gained = np.bincount(slots[kept], minlength=len(self._num_guesses))
        for slot, count in zip(*np.unique(tried, return_counts=True), strict=True):
            self._learn(int(slot), int(count), int(gained[slot]) - 1)
        return kept

    def _occupy(self, slot: int) -> None:
        # What still arrives is of whoever left the slot.
        for arriving in self._arriving:
            arriving.slots[arriving.slots == slot] = -1
        self._num_guesses[slot], self._num_misses[slot] = FIRST_GUESSES, 0

    def _take(self) -> None:
        arriving = self._arriving.popleft()
        self._tokens[arriving.slots, arriving.positions] = arriving.copying.wait().token_ids.numpy()

    def _learn(self, slot: int, tried: int, right: int) -> None:
        """Guesses grow while all are right, and shrink to what was right otherwise."""
        self._num_misses[slot] = 0 if right else self._num_misses[slot] + 1
        before = int(self._num_guesses[slot])
        if not right:
            self._num_guesses[slot] = max(before // 2, 1)
        elif right == tried:
            self._num_guesses[slot] = max(before, min(2 * right, MAX_GUESSES))
        else:
            self._num_guesses[slot] = right


def right_rows(guesses: _Ints, token_ids: _Ints) -> NDArray[np.intp]:
    """The rows behind right guesses alone. A row without a guess (-1) is the last one of its sequence."""
    kept, is_right = [], True
    for row, (guess, token_id) in enumerate(zip(guesses.tolist(), token_ids.tolist(), strict=True)):
        if is_right:
            kept.append(row)
        is_right = guess < 0 or (is_right and guess == token_id)
    return np.array(kept, dtype=np.intp)
