"""A common bound on the bodies that have not been parsed: the client that holds most of it gives way to others.

Without it slow clients may hold --max-connections times --payload-limit. If bodies waited for room, slow clients would
keep all others waiting; if whoever comes next were refused, they would have all others refused.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException

RETRY_SECONDS = 1
"""`Retry-After` of a body that gave way."""
Holder = tuple[str, str]
"""(tenant, address) of a client; the address is empty where the key tells clients apart."""


class BodyBudget:
    """Bytes of the bodies that arrive or wait for their parser."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._num_bytes = 0
        self._held: Counter[Holder] = Counter()
        self._leases: dict[Holder, dict[BodyLease, None]] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return self._num_bytes

    def take(self, lease: "BodyLease", size: int) -> None:
        """Gives a body room. Where there is none, the holder of most loses its oldest body; this one, if it is its own.

        Raises HTTPException 429.
        """
        self._leases.setdefault(lease.holder, {})[lease] = None
        self._add(lease, size)
        while self._num_bytes > self._most:
            largest = max(self._held, key=self._held.__getitem__)
            if largest == lease.holder:
                lease.release()
                raise too_many_bytes()
            next(iter(self._leases[largest])).evict()

    def give_back(self, lease: "BodyLease") -> None:
        """Takes a body's room back."""
        self._add(lease, -lease.num_bytes)
        leases = self._leases.get(lease.holder, {})
        leases.pop(lease, None)
        if not leases:
            self._leases.pop(lease.holder, None)
            self._held.pop(lease.holder, None)

    def _add(self, lease: "BodyLease", size: int) -> None:
        lease.num_bytes += size
        self._num_bytes += size
        self._held[lease.holder] += size


class BodyLease:
    """The room of one body."""

    def __init__(self, budget: BodyBudget, holder: Holder) -> None:
        self.holder = holder
        self.num_bytes = 0
        self._budget = budget
        self._waiting: asyncio.Timeout | None = None
        self._is_evicted = False

    def take(self, size: int) -> None:
        """Takes room for more of the body. Raises HTTPException 429."""
        self._budget.take(self, size)

    def release(self) -> None:
        """Gives all room back."""
        self._budget.give_back(self)

    def evict(self) -> None:
        """Gives it back to another client: the block of `waiting` ends."""
        self._is_evicted = True
        self.release()
        if self._waiting is not None:
            self._waiting.reschedule(0.0)  # The loop's clock is beyond that.

    @asynccontextmanager
    async def waiting(self, seconds: float | None = None) -> AsyncIterator[None]:
        """A block that ends with TimeoutError after some seconds, and with HTTPException 429 when others need the
        room."""
        try:
            async with asyncio.timeout(0.0 if self._is_evicted else seconds) as self._waiting:
                yield
        except TimeoutError:
            if self._is_evicted:
                raise too_many_bytes() from None
            raise
        finally:
            self._waiting = None


def too_many_bytes() -> HTTPException:
    """The refusal of a body that has no room."""
    headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
    return HTTPException(429, "Too many large bodies are being sent at once; send fewer, or send this again", headers)
