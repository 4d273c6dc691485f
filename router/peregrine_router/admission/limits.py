"""Limits on concurrent and queued requests, shared fairly by tenants, and the `Retry-After` of a refusal."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from peregrine_router.admission.api_limits import set_by
from peregrine_router.request import InvalidRequest, Overloaded, Request

ALPHA = 7
"""Dynamic threshold: a tenant may use at most ALPHA times the free places, so that 1 / (ALPHA + 1) of them stays free
for other tenants (shared-memory switches: Choudhury and Hahne, IEEE/ACM Transactions on Networking, 1998)."""
WINDOW_SECONDS = 10.0
"""Length of the sliding window of a `DrainRate`."""
MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0


def shortfall(limit: int, used: int, used_by_tenant: int, count: int, tenant: str) -> int:
    """Number of places that must become free before `tenant` can have `count` more; 0 if it can have them already.

    The threshold does not apply to the nameless tenant, which is alone, nor to a tenant that uses no place yet.
    """
    free = limit - used - count
    is_limited = bool(tenant and used_by_tenant)
    over_threshold = -((ALPHA * free - used_by_tenant - count) // (ALPHA + 1)) if is_limited else 0
    return max(-free, over_threshold, 0)


class DrainRate:
    """Requests or tokens that end per second, over a sliding window. The caller's clock: `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        self._total = 0
        self._busy_since = 0.0
        self._is_busy = False

    def begin(self, now: float) -> None:
        """Records a start. The first one after an idle time restarts the measurement."""
        if not self._is_busy:
            self._is_busy, self._busy_since, self._total = True, now, 0
            self._ends.clear()

    def end(self, now: float, amount: int, *, is_last: bool) -> None:
        """Records the end of `amount`. `is_last`: nothing else is running."""
        self._ends.append((now, amount))
        self._total += amount
        self._expire(now)
        self._is_busy = not is_last

    def seconds_until(self, now: float, amount: int) -> float:
        """Estimated time until `amount` more has ended: MIN_RETRY_SECONDS to MAX_RETRY_SECONDS."""
        self._expire(now)
        span = min(now - self._busy_since, WINDOW_SECONDS)
        # Nothing ended since then: the wait so far is the best estimate of the rest.
        seconds = amount * span / self._total if self._total else now - self._busy_since
        return min(max(seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] < now - WINDOW_SECONDS:
            self._total -= self._ends.popleft()[1]


class ConcurrencyLimit:
    """Limit on sequences in the server. Refuses at once, without a queue."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: Counter[str] = Counter()
        self._total = 0
        self._rate = DrainRate()

    def acquire(self, count: int, tenant: str) -> None:
        """Takes `count` permits or none. Raises Overloaded with the time until they are likely to be free, or
        InvalidRequest if there are never that many."""
        if count > self._limit:
            flag = set_by("max_concurrent_requests")
            raise InvalidRequest(f"one request may have {self._limit} prompts x sequences. Given: {count}{flag}")
        if (error := self.refusal(count, tenant)) is not None:
            raise error
        self._rate.begin(time.monotonic())
        self._used[tenant] += count
        self._total += count

    def refusal(self, count: int, tenant: str) -> Overloaded | None:
        """The error that `acquire` would raise; None if there is room."""
        missing = shortfall(self._limit, self._total, self._used.get(tenant, 0), count, tenant)
        if not missing:
            return None
        message = f"{self._limit} requests may be in the server{set_by('max_concurrent_requests')}"
        return Overloaded(message, self._rate.seconds_until(time.monotonic(), missing))

    def release(self, count: int, tenant: str) -> None:
        """Returns `count` permits."""
        if count:
            self._used[tenant] -= count
            self._total -= count
            if not self._used[tenant]:
                del self._used[tenant]  # There may be as many tenants as keys.
            self._rate.end(time.monotonic(), count, is_last=not self._total)


class QueueLimit:
    """Limit on waiting requests and on their prompt tokens."""

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        """None means no limit."""
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._num_live = 0
        self._requests, self._tokens = DrainRate(), DrainRate()

    def check(self, new: Sequence[Request], waiting: Sequence[Request], num_free_slots: int) -> None:
        """Raises Overloaded if the requests `new`, all of one tenant, may not join the queue.

        Free slots of the batch are filled from the queue at once, so they count as room in it.
        """
        if self._max_requests is not None:
            message = f"{self._max_requests} requests may wait{set_by('max_queue_size')}"
            limit = self._max_requests + num_free_slots
            _check(self._requests, limit, new, waiting, lambda request: 1, message)
        # A prompt longer than the limit is accepted into an empty queue, or it could never run.
        if self._max_tokens is not None and waiting:
            message = f"{self._max_tokens} prompt tokens may wait{set_by('max_queue_tokens')}"
            _check(self._tokens, self._max_tokens, new, waiting, _num_tokens, message)

    def begin(self) -> None:
        """A request is queued."""
        self._num_live += 1
        for rate in (self._requests, self._tokens):
            rate.begin(time.monotonic())

    def end(self, request: Request) -> None:
        """Records the end of a request. While requests are queued, each end lets one leave the queue, so ends measure
        the queue's drain rate."""
        self._num_live -= 1
        now, is_last = time.monotonic(), not self._num_live
        self._requests.end(now, 1, is_last=is_last)
        self._tokens.end(now, _num_tokens(request), is_last=is_last)


def _check(
    rate: DrainRate,
    limit: int,
    new: Sequence[Request],
    waiting: Sequence[Request],
    size: Callable[[Request], int],
    message: str,
) -> None:
    tenant = new[0].tenant
    used_by_tenant = sum(size(request) for request in waiting if request.tenant == tenant)
    missing = shortfall(limit, sum(map(size, waiting)), used_by_tenant, sum(map(size, new)), tenant)
    if missing:
        raise Overloaded(message, rate.seconds_until(time.monotonic(), missing))


def _num_tokens(request: Request) -> int:
    return len(request.prompt_ids)
