"""Threads that tenants share."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from peregrine_router.admission.fair_threads import TENANT, FairThreads


class Gate:
    """Work that takes until it is opened, and a record of whose work was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._opened = threading.Event()

    def work(self, name: str) -> Callable[[], str]:
        def wait() -> str:
            self.begun.append(name)
            assert self._opened.wait(10)
            return name

        return wait

    def open(self) -> None:
        self._opened.set()


async def start(threads: FairThreads, tenant: str, work: Callable[[], str]) -> "asyncio.Task[str]":
    """Begins to wait for work of a tenant."""
    TENANT.set(tenant)
    task = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0)
    return task


async def test_tenants_take_turns() -> None:
    """Whoever comes with one piece of work waits for at most one of another who has posted many."""
    threads, gate = FairThreads(1, "test"), Gate()
    flood = [await start(threads, "a", gate.work(f"a{n}")) for n in range(4)]
    other = await start(threads, "b", gate.work("b"))
    gate.open()
    assert await asyncio.gather(*flood, other) == ["a0", "a1", "a2", "a3", "b"]
    assert gate.begun[:2] == ["a0", "b"]
    threads.close()


async def test_cancelled_work_is_not_begun() -> None:
    """A caller that leaves while it waits costs nothing, and what runs already keeps its thread until it ends."""
    threads, gate = FairThreads(1, "test"), Gate()
    tasks = [await start(threads, "a", gate.work(str(n))) for n in range(3)]
    await asyncio.sleep(0.01)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert threads.num_waiting == 1
    gate.open()
    assert await tasks[2] == "2"
    assert gate.begun == ["0", "2"]
    threads.close()


async def test_an_error_is_the_callers() -> None:
    """An error of the work is raised, and the thread is free again."""
    threads = FairThreads(1, "test")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 / 0)
    assert await threads.run(lambda: 1) == 1
    threads.close()


async def test_nothing_is_kept_of_idle_tenants() -> None:
    """Keys that come and go leave nothing behind."""
    threads = FairThreads(2, "test")
    for tenant in map(str, range(100)):
        TENANT.set(tenant)
        await threads.run(lambda: None)
    await asyncio.sleep(0.01)
    assert not threads._seconds
    assert not threads._running
    threads.close()
