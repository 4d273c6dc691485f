"""Hard deadlines: a request ends when its time is over, and does not start if too little is left for a token."""

import asyncio
import time
from collections.abc import Callable, Iterable

from peregrine_router.engine.step_times import StepTimes
from peregrine_router.request import DeadlineExceeded, Request

TIME_IS_OVER = "the answer was not complete in time; allow more, or ask for fewer tokens"
TIME_IS_SHORT = "the time that was left is too short for the next token; allow more, or try again later"


class Deadlines:
    """The timers of the requests that have a deadline."""

    def __init__(self, end: Callable[[str, Exception], object], steps: StepTimes) -> None:
        """`end`: ends the request with an id with an error. `steps`: the times by which a deadline is too close."""
        self._end = end
        self._steps = steps
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def check(self, requests: Iterable[Request]) -> None:
        """Raises DeadlineExceeded if the time of a request is over already."""
        now = time.monotonic()
        if any(request.deadline is not None and request.deadline <= now for request in requests):
            raise DeadlineExceeded(TIME_IS_OVER)

    def watch(self, request: Request) -> None:
        """Starts a timer that ends the request at its deadline, whether it waits or runs."""
        if request.deadline is None:
            return
        delay = request.deadline - time.monotonic()
        loop = asyncio.get_running_loop()
        self._timers[request.id] = loop.call_later(delay, self._end, request.id, DeadlineExceeded(TIME_IS_OVER))

    def forget(self, request: Request) -> None:
        """Stops the timer of a request that has ended."""
        if request.deadline is not None and (timer := self._timers.pop(request.id, None)) is not None:
            timer.cancel()

    @property
    def are_none(self) -> bool:
        """Whether no request has a deadline."""
        return not self._timers

    def drop_unmeetable(self, waiting: Iterable[tuple[Request, int, Callable[[], int]]], max_step_tokens: int) -> None:
        """Ends the waiting requests that cannot get their next token in time, before any work is spent on them.

        `waiting`: each request with its length in tokens, and a function that counts those to compute before its next
        one. The function looks for the whole prompt in the cache, so it is called only if time is short without that.
        """
        now = time.monotonic()
        for request, length, count in list(waiting):
            seconds = float("inf") if request.deadline is None else request.deadline - now
            if seconds < self._needed(length, max_step_tokens) and seconds < self._needed(count(), max_step_tokens):
                self._end(request.id, DeadlineExceeded(TIME_IS_SHORT))

    def _needed(self, num_tokens: int, max_step_tokens: int) -> float:
        """Seconds that computing `num_tokens` takes at least."""
        num_full, rest = divmod(num_tokens, max_step_tokens)
        return num_full * self._steps.lower_bound(max_step_tokens) + (self._steps.lower_bound(rest) if rest else 0.0)
