"""Steps in flight: their order, their times, and what observers are told."""

import asyncio
import time
from collections.abc import Callable

import pytest

from fake_shards import FakeModel, FakeShards, submit
from peregrine_router.engine.step_pipeline import StepPipeline
from peregrine_router.interfaces import StepObserver
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.protocol import Step, StepResult

pytestmark = pytest.mark.alone
BLOCK_SIZE = 4


class Listener(StepObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.sent_ids: list[int] = []
        self.seconds: dict[int, float] = {}
        self.untimed_ids: list[int] = []
        self.failed_ids: list[int] = []
        self.spent_seconds: dict[str, float] = {}

    def sent(self, step: Step) -> None:
        self.sent_ids.append(step.id)

    def answered(self, step: Step, result: StepResult, seconds: float | None) -> None:
        assert result.id == step.id
        if seconds is None:
            self.untimed_ids.append(step.id)
        else:
            self.seconds[step.id] = seconds

    def failed(self, step: Step) -> None:
        self.failed_ids.append(step.id)

    def spent(self, phase: str, seconds: float) -> None:
        self.spent_seconds[phase] = seconds


class Rig:
    """A scheduler with one running request of 20 tokens, and the pipeline to its shards."""

    def __init__(self) -> None:
        self.shards = FakeShards(FakeModel(64, BLOCK_SIZE))
        self.scheduler = Scheduler(
            BlockPool(64, BLOCK_SIZE),
            FairPolicy(8, lead=16),
            max_batch_size=8,
            max_step_tokens=16,
            eos_token_ids=frozenset(),
        )
        submit(self.scheduler, Request("a", (1, 2, 3), SamplingParams(), 20))
        self.listener = Listener()
        self.pipeline = StepPipeline(self.shards, self.scheduler.in_flight, [self.listener])

    async def send(self, make: Callable[[], Step | None] | None = None) -> None:
        step = (make or self.scheduler.schedule)()
        assert step is not None
        await self.pipeline.send(step)

    async def receive(self, seconds: float = 0.0) -> None:
        self.shards.step_seconds = seconds
        self.scheduler.commit(await self.pipeline.receive())


async def test_two_steps_in_flight_are_timed_apart() -> None:
    """The second starts when the first ends: together they take no longer than both took."""
    rig, start = Rig(), time.monotonic()
    for _ in range(2):
        await rig.send()
    for _ in range(2):
        await rig.receive(0.02)
    assert rig.listener.sent_ids == [0, 1]
    assert all(seconds >= 0.02 for seconds in rig.listener.seconds.values())
    assert 0.04 <= sum(rig.listener.seconds.values()) <= time.monotonic() - start


async def test_a_result_that_waited_for_the_one_before_is_not_timed() -> None:
    """Both came while the router was busy: the time between their takings is the router's own."""
    rig = Rig()
    for _ in range(2):
        await rig.send()
    rig.shards.has_result = True
    await rig.receive(0.02)
    rig.shards.has_result = False
    await rig.receive()
    await rig.send()
    await rig.receive(0.02)
    assert rig.listener.untimed_ids == [1]
    assert list(rig.listener.seconds) == [0, 2]


async def test_no_step_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stood still between two results has timed nothing."""
    rig = Rig()
    monkeypatch.setattr("peregrine_router.engine.step_pipeline.time.monotonic", lambda: 7.0)
    for _ in range(2):
        await rig.send()
    for _ in range(2):
        await rig.receive()
    assert rig.listener.untimed_ids == [0, 1]


async def test_time_without_a_step_in_flight_is_no_steps() -> None:
    """A step that is sent to idle shards begins when it is sent."""
    rig = Rig()
    await rig.send()
    await rig.receive()
    await asyncio.sleep(0.05)
    await rig.send()
    await rig.receive()
    assert rig.listener.seconds[1] < 0.05


async def test_steps_without_work_are_not_reported() -> None:
    """Heartbeats ask whether the shards live; their times say nothing of steps."""
    rig = Rig()
    await rig.send(rig.scheduler.heartbeat)
    await rig.receive()
    await rig.send(rig.scheduler.heartbeat)
    rig.shards.failure = RuntimeError("gone")
    with pytest.raises(RuntimeError, match="gone"):
        await rig.receive()
    assert (rig.listener.sent_ids, rig.listener.seconds, rig.listener.failed_ids) == ([], {}, [])


async def test_the_oldest_step_fails() -> None:
    """Where the shards fail with two steps in flight, the first is the one that failed."""
    rig = Rig()
    for _ in range(2):
        await rig.send()
    rig.shards.failure = RuntimeError("gone")
    with pytest.raises(RuntimeError, match="gone"):
        await rig.receive()
    assert rig.listener.failed_ids == [0]


async def test_a_result_that_comes_while_a_clock_runs_ends_the_wait() -> None:
    """It is taken afterwards, and counts as it came."""
    rig = Rig()
    await rig.send()
    start, rig.shards.step_seconds = time.monotonic(), 0.02
    await rig.pipeline.wait(5.0)
    assert time.monotonic() - start < 4.0
    await asyncio.sleep(0.1)
    await rig.receive()
    assert 0.02 <= rig.listener.seconds[0] < 0.1


async def test_the_start_of_the_oldest_step_is_known() -> None:
    """From its send time or the end of the step before; None while nothing is in flight."""
    rig = Rig()
    assert rig.pipeline.started_at is None
    start = time.monotonic()
    for _ in range(2):
        await rig.send()
    first = rig.pipeline.started_at
    await rig.receive(0.02)
    second = rig.pipeline.started_at
    await rig.receive()
    assert first is not None
    assert second is not None
    assert start <= first < start + 0.02 <= second
    assert rig.pipeline.started_at is None


def test_the_routers_part_is_timed() -> None:
    """Observers are told how long a phase took; of one that failed they are told nothing."""
    rig = Rig()
    with rig.pipeline.timing("deliver"):
        time.sleep(0.01)
    assert 0.01 <= rig.listener.spent_seconds["deliver"] < 1.0
    with pytest.raises(RuntimeError), rig.pipeline.timing("wait"):
        raise RuntimeError
    assert "wait" not in rig.listener.spent_seconds
