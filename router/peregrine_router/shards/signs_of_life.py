"""A shard's signs of life: when it counts as healthy, and when it is given up."""

import asyncio
from collections.abc import Callable

from peregrine_server.parent import BEAT_SECONDS

UNRESPONSIVE_SECONDS = 4 * BEAT_SECONDS
"""Time without a beat after which a shard does not count as healthy."""
LOADING_FACTOR = 10
"""Times its limit that a shard has while it loads: an import of torch from a cold disk holds the interpreter, and
with it the thread that beats."""


class SignsOfLife:
    """A shard is alive as long as it beats: what else it does may take as long as a step."""

    def __init__(self, rank: int, limit: float, fail: Callable[[str], None]) -> None:
        """`limit`: seconds without a beat after which `fail` is called, once."""
        self.silent_seconds = 0.0
        """Time since the last beat, counted in turns of the event loop: if the router itself was stopped for a minute,
        a shard was not silent for as long."""
        self.is_loading = True
        self._rank = rank
        self._limit = limit
        self._fail = fail
        self._num_beats = 0

    @property
    def is_responsive(self) -> bool:
        """Whether it has beaten lately."""
        return self.silent_seconds < UNRESPONSIVE_SECONDS

    def beat(self) -> None:
        """Counts a beat."""
        self._num_beats += 1

    async def watch(self) -> None:
        """Ends when the shard is given up."""
        num_seen = 0
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.silent_seconds = 0.0 if self._num_beats > num_seen else self.silent_seconds + BEAT_SECONDS
            num_seen = self._num_beats
            limit = self._limit * LOADING_FACTOR if self.is_loading else self._limit
            if self.silent_seconds >= limit:
                self._fail(f"shard {self._rank} showed no sign of life for {limit:.0f} s (--shard-timeout)")
                return
