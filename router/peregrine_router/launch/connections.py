"""Limits on open connections, in all and from one address."""

import logging
import resource
from collections import Counter

from peregrine_router.settings import Settings

FILES_BESIDE_CONNECTIONS = 128
"""Open files that are no connections: libraries, shards' sockets and pipes, logs. An idle server of one shard has about
30. Where files are scarce, half of them are kept for these."""
log = logging.getLogger(__name__)


class ConnectionLimits:
    """Counts the open connections of a server."""

    def __init__(self, most: int, most_per_address: int | None = None, slow_client_seconds: float = 60.0) -> None:
        """`slow_client_seconds`: time after which a client that reads nothing of what it is sent is disconnected."""
        self.slow_client_seconds = slow_client_seconds
        self._most = most
        self._most_per_address = most_per_address
        self._num_open = 0
        self._open: Counter[str] = Counter()

    @property
    def is_flooded(self) -> bool:
        """Whether there are so many connections that those too many are closed without an answer."""
        return self._num_open > 2 * self._most

    def open(self, address: str) -> int:
        """Counts a new connection. 0 if it may stay, else the status to refuse it with; `close` follows in any case."""
        self._num_open += 1
        self._open[address] += 1
        if self._num_open > self._most:
            return 503
        return 429 if self._most_per_address is not None and self._open[address] > self._most_per_address else 0

    def close(self, address: str) -> None:
        """A connection of `open` has ended."""
        self._num_open -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


def connection_limits(settings: Settings) -> ConnectionLimits:
    """The limits that the operator has set, or the system sets."""
    most = raise_file_limit(settings.max_connections)
    if most < settings.max_connections:
        log.warning("--max-connections is %d: the system allows no more open files (ulimit -n)", most)
    return ConnectionLimits(most, settings.max_connections_per_address, settings.slow_client_timeout)


def raise_file_limit(connections: int) -> int:
    """Lets the process open files for so many connections, as far as it may; the number that is possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + FILES_BESIDE_CONNECTIONS
    if resource.RLIM_INFINITY != soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, soft - min(FILES_BESIDE_CONNECTIONS, soft // 2))
