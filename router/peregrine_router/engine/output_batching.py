"""Batching of wakeups: a stream is woken for each token, or for several while the event loop cannot keep up."""

import asyncio
import time
from collections import deque

from peregrine_router.engine.mailbox import Mailbox
from peregrine_router.request import TokenEvent

MIN_TOKENS_PER_FLUSH, MAX_TOKENS_PER_FLUSH = 4, 16
"""Bounds on the tokens that share a wakeup and a write under load: as many as the steps of `MAX_LATE_SECONDS` bring."""
MAX_LATE_SECONDS = 0.03
"""Delay of a token that is acceptable under load: two frames of a screen. Where steps are so long that
`MIN_TOKENS_PER_FLUSH` take longer, it is more."""
WINDOW_SECONDS = 0.03
"""Interval at which load is judged: a reader does not notice a shorter delay, and a burst is over in little more."""
MIN_IDLE_FRACTION = 0.2
"""The loop counts as overloaded if less than this fraction of the window was idle (all streams written, waiting for the
shards)."""


class EventLoopLoad:
    """Tells whether the router is slower than its shards: the next result is there whenever the streams have
    written."""

    def __init__(self) -> None:
        self.is_high = False
        self.tokens_per_flush = MIN_TOKENS_PER_FLUSH
        """Tokens of a stream that share a wakeup while the load is high."""
        self._num_steps = 0
        self._window_start = self._written_at = time.monotonic()
        self._idle_seconds = 0.0

    def record_result(self) -> None:
        """Records that the tokens of a step have come."""
        now = time.monotonic()
        self._idle_seconds += now - self._written_at
        self._num_steps += 1
        if (seconds := now - self._window_start) >= WINDOW_SECONDS:
            self.is_high = self._idle_seconds < MIN_IDLE_FRACTION * seconds
            in_time = int(MAX_LATE_SECONDS * self._num_steps / seconds)
            self.tokens_per_flush = min(max(in_time, MIN_TOKENS_PER_FLUSH), MAX_TOKENS_PER_FLUSH)
            self._window_start, self._idle_seconds, self._num_steps = now, 0.0, 0

    def record_wakeups(self) -> None:
        """Records that streams were woken; a callback scheduled here runs after their writes."""
        self._written_at = time.monotonic()
        asyncio.get_running_loop().call_soon(self._record_written)

    def _record_written(self) -> None:
        self._written_at = time.monotonic()


class OutputBatcher:
    """Puts the tokens of a step into the mailboxes of their streams.

    A wakeup and a write cost several times as much as everything else the router does for a token. While it cannot keep
    up with the shards, a few tokens share them: each is some steps late, but without this all would be later.
    """

    def __init__(self) -> None:
        self.load = EventLoopLoad()
        self._deferred: deque[list[Mailbox[TokenEvent]]] = deque()
        """Mailboxes in which a token waits without a wakeup, by the step of that token, the oldest first."""
        self._deferred_now: list[Mailbox[TokenEvent]] = []

    def start_step(self) -> None:
        """Starts a step, whose tokens are put next."""
        self.load.record_result()
        self._deferred_now = []

    def put(self, mailbox: Mailbox[TokenEvent], event: TokenEvent) -> None:
        """Puts a token into a mailbox. The first and the last of a stream wake it at once."""
        items, load = mailbox.items, self.load
        items.append(event)
        count = len(items)
        if not load.is_high or count >= load.tokens_per_flush or event.finished is not None or event.index == 1:
            mailbox.wake()
        elif count == 1:
            self._deferred_now.append(mailbox)

    def end_step(self) -> None:
        """Wakes the streams whose oldest token has waited long enough: they may have got no other since."""
        self._deferred.append(self._deferred_now)
        while len(self._deferred) >= self.load.tokens_per_flush:
            for mailbox in self._deferred.popleft():
                if mailbox.items:
                    mailbox.wake()
        self.load.record_wakeups()
