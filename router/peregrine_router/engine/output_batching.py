"""When a stream is woken for its tokens: for each, or for several together while the event loop cannot keep up."""

import asyncio
import time
from collections import deque

from peregrine_router.engine.mailbox import Mailbox
from peregrine_router.request import TokenEvent

MIN_TOKENS_PER_FLUSH, MAX_TOKENS_PER_FLUSH = 4, 16
"""Tokens that share a wakeup and a write under load: as many as `MAX_LATE_SECONDS` of steps bring."""
MAX_LATE_SECONDS = 0.03
"""How late a token may be for that: two frames of a screen. A few tokens may be later where steps take longer."""
WINDOW_SECONDS = 0.03
"""After which load is judged anew: a reader notices no sooner what is late, and a burst is over in little more."""
MIN_IDLE_FRACTION = 0.2
"""Share of the time that an event loop without load spends waiting for the shards, its streams all written."""


class EventLoopLoad:
    """Whether the router is slower than its shards: whenever the streams have written, the next answer is there."""

    def __init__(self) -> None:
        self.is_high = False
        self.tokens_per_flush = MIN_TOKENS_PER_FLUSH
        """Tokens of a stream that share a wakeup while it is high."""
        self._num_steps = 0
        self._window_start = self._written_at = time.monotonic()
        self._idle_seconds = 0.0

    def record_answer(self) -> None:
        """The tokens of a step have come."""
        now = time.monotonic()
        self._idle_seconds += now - self._written_at
        self._num_steps += 1
        if (seconds := now - self._window_start) >= WINDOW_SECONDS:
            self.is_high = self._idle_seconds < MIN_IDLE_FRACTION * seconds
            in_time = int(MAX_LATE_SECONDS * self._num_steps / seconds)
            self.tokens_per_flush = min(max(in_time, MIN_TOKENS_PER_FLUSH), MAX_TOKENS_PER_FLUSH)
            self._window_start, self._idle_seconds, self._num_steps = now, 0.0, 0

    def record_delivery(self) -> None:
        """Streams were woken: what is called soon from here on comes after their writes."""
        self._written_at = time.monotonic()
        asyncio.get_running_loop().call_soon(self._record_written)

    def _record_written(self) -> None:
        self._written_at = time.monotonic()


class OutputBatcher:
    """Puts the tokens of a step where their streams find them.

    A wakeup and a write cost several times what else the router does for a token. While it cannot keep up with the
    shards, a few tokens share them: each is late by some steps, but all would be later without.
    """

    def __init__(self) -> None:
        self.load = EventLoopLoad()
        self._deferred: deque[list[Mailbox[TokenEvent]]] = deque()
        """By step, the oldest first: where a token was left for which nobody was woken."""
        self._deferred_now: list[Mailbox[TokenEvent]] = []

    def start_step(self) -> None:
        """The tokens of another step follow."""
        self.load.record_answer()
        self._deferred_now = []

    def put(self, mailbox: Mailbox[TokenEvent], event: TokenEvent) -> None:
        """One token. A first and a last one never wait."""
        items, load = mailbox.items, self.load
        items.append(event)
        count = len(items)
        if not load.is_high or count >= load.tokens_per_flush or event.finished is not None or event.index == 1:
            mailbox.wake()
        elif count == 1:
            self._deferred_now.append(mailbox)

    def end_step(self) -> None:
        """Wakes whoever's first token has waited long enough: its sequence may have been in no step since."""
        self._deferred.append(self._deferred_now)
        while len(self._deferred) >= self.load.tokens_per_flush:
            for mailbox in self._deferred.popleft():
                if mailbox.items:
                    mailbox.wake()
        self.load.record_delivery()
