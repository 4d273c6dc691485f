"""Threads whose waiting work is taken from tenants in turn, so that none waits for all that another has posted."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

T = TypeVar("T")
TENANT: ContextVar[str] = ContextVar("tenant", default="")
"""Name of the tenant for whom the current task works; set once a request's key is known."""


class FairThreads:
    """A thread pool for one event loop. The tenant whose work has taken the least time is next."""

    def __init__(self, num_threads: int, name: str, num_ahead: int = 0) -> None:
        """`num_ahead`: works given to the threads before they are free. A busy event loop turns once in 14 ms for 1,000
        streams, and threads that wait for it between two short works start 1,000 requests more slowly than these end.
        """
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._num_free = num_threads + num_ahead
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Tenant -> its callers that wait for a thread; no empty queues."""
        self._running: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        """Time that the threads have worked for each tenant that waits or runs, since it came."""

    @property
    def num_waiting(self) -> int:
        """Number of callers that wait for a thread."""
        return sum(map(len, self._waiting.values()))

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, for the current tenant. Cancelled while it waits, the work is never begun."""
        tenant = TENANT.get()
        # A newcomer begins level with the tenant that has had the least: idle time earns nothing.
        self._seconds.setdefault(tenant, min(self._seconds.values(), default=0.0))
        await self._enter(tenant)
        seconds = [0.0]  # Not those in which it waits behind others.

        def timed() -> T:
            start = time.monotonic()
            try:
                return work()
            finally:
                seconds[0] = time.monotonic() - start

        running = self._threads.submit(timed)
        running.add_done_callback(partial(self._leave_from_thread, asyncio.get_running_loop(), tenant, seconds))
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, tenant: str) -> None:
        """Waits for a thread and takes it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(tenant, turn)
                self._forget_if_idle(tenant)
            else:
                self._leave(tenant, 0.0)
            raise

    def _admit(self) -> None:
        """Gives free threads to those who wait."""
        while self._num_free and self._waiting:
            tenant = min(self._waiting, key=self._seconds.__getitem__)
            turn = self._waiting[tenant][0]
            self._remove(tenant, turn)
            if not turn.cancelled():
                self._num_free -= 1
                self._running[tenant] += 1
                turn.set_result(None)

    def _remove(self, tenant: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(tenant, deque())
        with suppress(ValueError):  # It has been taken from the queue already.
            queue.remove(turn)
        if not queue:
            self._waiting.pop(tenant, None)

    def _leave_from_thread(
        self, loop: asyncio.AbstractEventLoop, tenant: str, seconds: list[float], work: "Future[object]"
    ) -> None:
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(self._leave, tenant, seconds[0])

    def _leave(self, tenant: str, seconds: float) -> None:
        """Returns a thread."""
        self._num_free += 1
        self._running[tenant] -= 1
        self._seconds[tenant] += seconds
        self._admit()
        self._forget_if_idle(tenant)

    def _forget_if_idle(self, tenant: str) -> None:
        if tenant not in self._waiting and self._running[tenant] <= 0:
            self._running.pop(tenant, None)
            self._seconds.pop(tenant, None)
