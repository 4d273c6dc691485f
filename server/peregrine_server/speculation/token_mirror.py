"""The tokens of every slot on the host, as far as they are there."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from peregrine_server.sampling.host_copy import PendingCopy

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Arriving:
    """Sampled tokens on their way to the host."""

    slots: _Ints
    positions: _Ints
    copying: "PendingCopy"


class HostTokenMirror:
    """A second copy of the batch's tokens, or on a CPU the batch's own."""

    def __init__(self, token_ids: Tensor, *, is_copy: bool) -> None:
        """`token_ids`: the batch's, int64[slots, positions]."""
        self.num_slots, num_positions = token_ids.shape
        self._is_copy = is_copy
        self._tokens = np.zeros((self.num_slots + 1, num_positions), np.int64) if is_copy else token_ids.numpy()
        """[slots, positions]; of a copy one row more, for what arrives for nobody."""
        self._arriving: deque[_Arriving] = deque()

    def add(self, slot: int, token_ids: _Ints) -> None:
        """A sequence of int64[L] has taken a slot."""
        if self._is_copy:
            self._forget(slot)
            self._tokens[slot, : len(token_ids)] = token_ids

    def fork(self, slot: int, parent: int, length: int) -> None:
        """A copy of another sequence of `length` tokens, all of them its prompt's, has taken a slot."""
        if self._is_copy:
            self._forget(slot)
            self._tokens[slot, :length] = self._tokens[parent, :length]

    def note(self, slots: _Ints, positions: _Ints, copying: "PendingCopy") -> None:
        """The tokens of a step are on their way: int64[S] slots, and where the token of each stands."""
        if not self._is_copy:
            return
        while self._arriving and self._arriving[0].copying.is_done:
            self._take()
        self._arriving.append(_Arriving(slots.copy(), positions, copying))

    def wait(self) -> None:
        """Until all of them are there."""
        while self._arriving:
            self._take()

    def of(self, slot: int, length: int) -> _Ints:
        """The first tokens of a slot, int64[length], once they are waited for."""
        return self._tokens[slot, :length]

    def _forget(self, slot: int) -> None:
        # What still arrives is of whoever left the slot.
        for arriving in self._arriving:
            arriving.slots[arriving.slots == slot] = -1

    def _take(self) -> None:
        arriving = self._arriving.popleft()
        self._tokens[arriving.slots, arriving.positions] = arriving.copying.wait().token_ids.numpy()
