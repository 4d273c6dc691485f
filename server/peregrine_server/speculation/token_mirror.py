"""Host mirror of every slot's token ids, for prompt lookup while the batch's own are on the device."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from peregrine_server.sampling.host_copy import PendingCopy

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _PendingTokens:
    """One step's sampled tokens, on their way to the host."""

    slots: _Ints
    positions: _Ints
    copy: PendingCopy


class HostTokenMirror:
    """A second copy of the batch's tokens on the host; on a CPU, a view of the batch's own."""

    def __init__(self, token_ids: Tensor, *, is_copy: bool) -> None:
        """`token_ids`: the batch's, int64[slots, positions]."""
        self.num_slots, num_positions = token_ids.shape
        self._is_copy = is_copy
        self._tokens = np.zeros((self.num_slots + 1, num_positions), np.int64) if is_copy else token_ids.numpy()
        """int64[slots, positions]; a copy has one row more, at -1, for tokens whose slot was freed meanwhile."""
        self._pending: deque[_PendingTokens] = deque()

    def add(self, slot: int, token_ids: NDArray[np.integer[Any]]) -> None:
        """A sequence of L tokens has taken a slot."""
        if self._is_copy:
            self._drop_pending(slot)
            self._tokens[slot, : len(token_ids)] = token_ids

    def fork(self, slot: int, parent: int, length: int) -> None:
        """A fork of a sequence of `length` tokens, all of them its prompt's, has taken a slot."""
        if self._is_copy:
            self._drop_pending(slot)
            self._tokens[slot, :length] = self._tokens[parent, :length]

    def append(self, slots: _Ints, positions: _Ints, copy: PendingCopy) -> None:
        """Queues a step's sampled tokens: int64[S] slots, and the position of each one's token."""
        if not self._is_copy:
            return
        while self._pending and self._pending[0].copy.is_done:
            self._write_oldest()
        self._pending.append(_PendingTokens(slots.copy(), positions, copy))

    def wait(self) -> None:
        """Waits until every queued token is written."""
        while self._pending:
            self._write_oldest()

    def tokens(self, slot: int, length: int) -> _Ints:
        """The first tokens of a slot, int64[length]; `wait` comes first."""
        return self._tokens[slot, :length]

    def _drop_pending(self, slot: int) -> None:
        # Tokens still on their way were sampled for the slot's previous sequence.
        for pending in self._pending:
            pending.slots[pending.slots == slot] = -1

    def _write_oldest(self) -> None:
        pending = self._pending.popleft()
        self._tokens[pending.slots, pending.positions] = pending.copy.wait().token_ids.numpy()
