"""When to refuse a request, and when to ask again: limits that tenants share, a bounded queue, what ends a second."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from peregrine_router.request import Overloaded, Request

ALPHA = 7
"""A tenant holds at most so many times the places that are left free, so an eighth stays for whoever comes next. This
is the dynamic threshold of shared-memory switches (Choudhury and Hahne, IEEE/ACM Transactions on Networking, 1998)."""
WINDOW_SECONDS = 10.0
MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0


def shortfall(limit: int, held: int, mine: int, count: int, tenant: str) -> int:
    """How many places must become free before `count` more can be had; `held` are taken, `mine` of them by `tenant`.

    The nameless tenant shares with nobody. Whoever holds nothing may take what is there.
    """
    free = limit - held - count
    over_share = -((ALPHA * free - mine - count) // (ALPHA + 1)) if tenant and mine else 0
    return max(-free, over_share, 0)


class DrainRate:
    """What ends, a second, over a sliding window. It has no clock: `now` is in seconds, and never goes back."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        self._total = 0
        self._busy_since = 0.0
        self._is_busy = False

    def begin(self, now: float) -> None:
        """Something runs. Idle time before it says nothing of the rate, nor does what ended then."""
        if not self._is_busy:
            self._is_busy, self._busy_since, self._total = True, now, 0
            self._ends.clear()

    def end(self, now: float, amount: int, *, is_last: bool) -> None:
        """So much of what runs has ended, and with it everything or not."""
        self._ends.append((now, amount))
        self._total += amount
        self._forget(now)
        self._is_busy = not is_last

    def seconds_until(self, now: float, amount: int) -> float:
        """How long until `amount` more will have ended, between 1 and 60 s."""
        self._forget(now)
        span = min(now - self._busy_since, WINDOW_SECONDS)
        # Nothing in all that time: it may well take as long again.
        seconds = amount * span / self._total if self._total else now - self._busy_since
        return min(max(seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] < now - WINDOW_SECONDS:
            self._total -= self._ends.popleft()[1]


class ConcurrencyLimit:
    """Counts sequences in the server; full, or full of one tenant's, it refuses at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._rate = DrainRate()

    def acquire(self, count: int, tenant: str) -> None:
        """Takes `count` permits or none. Raises Overloaded."""
        now = time.monotonic()
        missing_places = shortfall(self._limit, self._held.total(), self._held[tenant], count, tenant)
        if missing_places:
            raise Overloaded(retry_after=self._rate.seconds_until(now, missing_places))
        self._rate.begin(now)
        self._held[tenant] += count

    def release(self, count: int, tenant: str) -> None:
        """Gives them back."""
        if count:
            self._held[tenant] -= count
            self._rate.end(time.monotonic(), count, is_last=not self._held.total())


class QueueLimit:
    """Refuses what would wait behind too many requests or prompt tokens."""

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        """None is no bound."""
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._num_live = 0
        self._requests, self._tokens = DrainRate(), DrainRate()

    def check(self, new: Sequence[Request], waiting: Sequence[Request], num_free_slots: int) -> None:
        """Raises Overloaded if `new` requests, of one tenant, may not join those that wait.

        Free slots are filled from the queue at once, so they count as room in it.
        """
        if self._max_requests is not None:
            _check(self._requests, self._max_requests + num_free_slots, new, waiting, lambda request: 1)
        # One prompt may be longer than the bound: behind nobody it need not wait.
        if self._max_tokens is not None and waiting:
            _check(self._tokens, self._max_tokens, new, waiting, _num_tokens)

    def begin(self) -> None:
        """A request is queued."""
        self._num_live += 1
        for rate in (self._requests, self._tokens):
            rate.begin(time.monotonic())

    def end(self, request: Request) -> None:
        """It has ended: while there is a queue, another one leaves that for it."""
        self._num_live -= 1
        now, is_last = time.monotonic(), not self._num_live
        self._requests.end(now, 1, is_last=is_last)
        self._tokens.end(now, _num_tokens(request), is_last=is_last)


def _check(
    rate: DrainRate, limit: int, new: Sequence[Request], waiting: Sequence[Request], size: Callable[[Request], int]
) -> None:
    tenant = new[0].tenant
    mine = sum(size(request) for request in waiting if request.tenant == tenant)
    missing_places = shortfall(limit, sum(map(size, waiting)), mine, sum(map(size, new)), tenant)
    if missing_places:
        raise Overloaded(retry_after=rate.seconds_until(time.monotonic(), missing_places))


def _num_tokens(request: Request) -> int:
    return len(request.prompt_ids)
