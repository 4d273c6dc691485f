"""The steps between scheduler and shards: sent in order, answered in order, each with its time."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager

from peregrine_router.engine.step_times import num_tokens
from peregrine_router.interfaces import Shards, StepObserver
from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_server.protocol import Step, StepResult


class StepPipeline:
    """Sends steps and receives their results, and tells the observers how long each took.

    The FIFO of steps in flight is the scheduler's, which appends and removes them, because a sequence that ends or is
    preempted has to leave each of them at once. The pipeline reads the clock for it: of two steps in flight the second
    begins when the first ends.
    """

    def __init__(self, shards: Shards, in_flight: deque[StepInFlight], observers: Iterable[StepObserver] = ()) -> None:
        """`in_flight`: `Scheduler.in_flight`."""
        self._shards = shards
        self._in_flight = in_flight
        self._observers = tuple(observers)
        self._idle_since = 0.0
        """When the last result came."""
        self._is_timed = True
        """Whether the time from `_idle_since` to the next result is that of its step: not if that came first."""
        self._result: asyncio.Task[StepResult] | None = None
        """The oldest step's result, while it is waited for beside a clock."""

    @property
    def failure(self) -> Exception | None:
        """Set once a shard has failed or died."""
        return self._shards.failure

    @property
    def num_in_flight(self) -> int:
        """Steps whose results were not committed."""
        return len(self._in_flight)

    @property
    def oldest(self) -> StepInFlight | None:
        """The oldest step in flight."""
        return self._in_flight[0] if self._in_flight else None

    @property
    def started_at(self) -> float | None:
        """`time.monotonic()` when the shards could begin the oldest step in flight; None if there is none."""
        return max(self._in_flight[0].sent_at, self._idle_since) if self._in_flight else None

    @property
    def num_tokens_sent(self) -> int:
        """Tokens that the newest step in flight computes."""
        return num_tokens(self._in_flight[-1].step)

    async def send(self, step: Step) -> None:
        """Sends the step that was scheduled last."""
        newest = self._in_flight[-1]
        assert newest.step is step, "steps are sent in the order of schedule()"
        newest.sent_at = time.monotonic()
        if step.slots:
            for observer in self._observers:
                observer.sent(step)
        await self._shards.send(step)

    async def wait(self, seconds: float) -> None:
        """Waits until the oldest step's result is there, or for `seconds`; `receive` is to take it."""
        self._result = self._result or asyncio.create_task(self._receive())
        await asyncio.wait([self._result], timeout=seconds)

    def receive(self) -> Awaitable[StepResult]:
        """The result of the oldest step in flight, which is to be committed before another is received."""
        result, self._result = self._result or self._receive(), None
        return result

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Tells the observers how long the block took, as the router's part of a step."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        for observer in self._observers:
            observer.spent(phase, seconds)

    def close(self) -> None:
        """Cancels a `wait` that was not followed by `receive`."""
        if self._result is not None:
            self._result.cancel()

    async def _receive(self) -> StepResult:
        oldest = self._in_flight[0]
        observers = self._observers if oldest.step.slots else ()
        try:
            result = await self._shards.receive()
        except Exception:
            for observer in observers:
                observer.failed(oldest.step)
            raise
        now = time.monotonic()
        seconds = now - max(oldest.sent_at, self._idle_since)
        for observer in observers:
            observer.answered(oldest.step, result, seconds if self._is_timed and seconds > 0.0 else None)
        self._idle_since, self._is_timed = now, not self._shards.has_result
        return result
