"""How much of a checkpoint a shard reads, and how long that takes."""

import time
from collections.abc import Callable

from msgspec import structs

from peregrine_server.protocol import Ready


class LoadMeter:
    """A load's progress, which it passes on, and its time from the meter's start."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress, self._start = progress, time.monotonic()
        self._read_bytes, self._seconds = 0, 0.0

    def __call__(self, read_bytes: int, total_bytes: int) -> None:
        """Reports bytes read and bytes in all."""
        self._read_bytes = read_bytes
        self._progress(read_bytes, total_bytes)

    def end(self) -> None:
        """The weights are packed on the device."""
        self._seconds = time.monotonic() - self._start

    def completed(self, ready: Ready, host_bytes: int = 0, link_bytes_per_second: float = 0.0) -> Ready:
        """The same with what was measured, and with weights that are copied from the host: see `Ready`."""
        return structs.replace(
            ready,
            read_bytes=self._read_bytes,
            load_seconds=self._seconds,
            host_bytes=host_bytes,
            link_bytes_per_second=link_bytes_per_second,
        )
