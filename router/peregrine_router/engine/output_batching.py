"""When a stream is woken for its tokens: for each, or for several together while the event loop cannot keep up."""

import asyncio
import time
from collections import deque

from peregrine_router.engine.mailbox import Mailbox
from peregrine_router.request import TokenEvent

MIN_TOGETHER, MAX_TOGETHER = 4, 16
"""Tokens that share a wakeup and a write under pressure: as many as `MAX_LATE_SECONDS` of steps bring."""
MAX_LATE_SECONDS = 0.03
"""How late a token may be for that: two frames of a screen. A few tokens may be later where steps take longer."""
WINDOW_SECONDS = 0.03
"""After which pressure is judged anew: a reader notices no sooner what is late, and a burst is over in little more."""
MIN_SLACK = 0.2
"""Share of the time that an event loop without pressure spends waiting for the shards, its streams all written."""


class LoopPressure:
    """Whether the router is slower than its shards: whenever the streams have written, the next answer is there."""

    def __init__(self) -> None:
        self.is_high = False
        self.num_together = MIN_TOGETHER
        """Tokens of a stream that share a wakeup while it is high."""
        self._num_steps = 0
        self._window_start = self._written_at = time.monotonic()
        self._slack = 0.0

    def note_answer(self) -> None:
        """The tokens of a step have come."""
        now = time.monotonic()
        self._slack += now - self._written_at
        self._num_steps += 1
        if (seconds := now - self._window_start) >= WINDOW_SECONDS:
            self.is_high = self._slack < MIN_SLACK * seconds
            in_time = int(MAX_LATE_SECONDS * self._num_steps / seconds)
            self.num_together = min(max(in_time, MIN_TOGETHER), MAX_TOGETHER)
            self._window_start, self._slack, self._num_steps = now, 0.0, 0

    def note_delivery(self) -> None:
        """Streams were woken: what is called soon from here on comes after their writes."""
        self._written_at = time.monotonic()
        asyncio.get_running_loop().call_soon(self._note_written)

    def _note_written(self) -> None:
        self._written_at = time.monotonic()


class Delivery:
    """Puts the tokens of a step where their streams find them.

    A wakeup and a write cost several times what else the router does for a token. While it cannot keep up with the
    shards, a few tokens share them: each is late by some steps, but all would be later without.
    """

    def __init__(self) -> None:
        self.pressure = LoopPressure()
        self._held: deque[list[Mailbox[TokenEvent]]] = deque()
        """By step, the oldest first: where a token was left for which nobody was woken."""
        self._holding: list[Mailbox[TokenEvent]] = []

    def start_step(self) -> None:
        """The tokens of another step follow."""
        self.pressure.note_answer()
        self._holding = []

    def put(self, mailbox: Mailbox[TokenEvent], event: TokenEvent) -> None:
        """One token. A first and a last one never wait."""
        items, pressure = mailbox.items, self.pressure
        items.append(event)
        count = len(items)
        if not pressure.is_high or count >= pressure.num_together or event.finished is not None or event.index == 1:
            mailbox.wake()
        elif count == 1:
            self._holding.append(mailbox)

    def end_step(self) -> None:
        """Wakes whoever's first token has waited long enough: its sequence may have been in no step since."""
        self._held.append(self._holding)
        while len(self._held) >= self.pressure.num_together:
            for mailbox in self._held.popleft():
                if mailbox.items:
                    mailbox.wake()
        self.pressure.note_delivery()
