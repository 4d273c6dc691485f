"""The text of /metrics under frequent scrapes: one rendering answers several."""

import time
from collections.abc import Callable

RENDERINGS_PER_SECOND = 10
"""Renderings a second in the long run. One takes 1.5 ms of the event loop or more, in which no stream moves."""
BURST = 20
"""Renderings that may follow each other at once: who scrapes less often than RENDERINGS_PER_SECOND always gets a text
of that moment."""


class ScrapeCache:
    """Renders when it is asked, within the limits above; beyond them it gives the last text, at most 0.1 s old."""

    def __init__(self, render: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._render = render
        self._clock = clock
        self._text = b""
        self._paid_until = clock()
        """Time at which the renderings so far are within the long-run rate."""

    def text(self) -> bytes:
        """The exposition text."""
        now = self._clock()
        paid_until = max(self._paid_until, now) + 1 / RENDERINGS_PER_SECOND
        if paid_until - now <= BURST / RENDERINGS_PER_SECOND:
            self._paid_until = paid_until
            self._text = self._render()
        return self._text
