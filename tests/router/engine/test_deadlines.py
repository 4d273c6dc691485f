"""Deadlines of requests in the engine."""

import asyncio
import time

import pytest

from engines import read, running
from fake_shards import events_of, submit
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.request import (
    DeadlineExceeded,
    Request,
    SamplingParams,
    TokenEvent,
)

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def in_time(name: str, seconds: float, num_input: int = 1, count: int = 40) -> Request:
    """A request that must end within `seconds`."""
    return Request(name, (1,) * num_input, SamplingParams(), count, deadline=time.monotonic() + seconds)


async def read_into(events: list[TokenEvent], stream: RequestStream) -> None:
    async for event in events_of(stream):
        events.append(event)


async def test_a_deadline_ends_a_running_request() -> None:
    """The stream ends with the error, not with a finish reason, in the middle of a step; its blocks are free."""
    async with running(step_seconds=0.03) as rig:
        started, events = time.monotonic(), list[TokenEvent]()
        neighbour = rig.submit([2], 8)
        with pytest.raises(DeadlineExceeded):
            await read_into(events, submit(rig.engine, in_time("a", 0.1)))
        assert time.monotonic() - started < 0.2
        assert 1 <= len(events) <= 4
        assert events[-1].finished is None
        assert len(await read(neighbour)) == 8
        assert rig.scheduler.pool.num_used == 0


async def test_a_request_that_ends_in_time_has_no_timer_left() -> None:
    """Its deadline passes without a trace."""
    async with running() as rig:
        assert len(await read(submit(rig.engine, in_time("a", 0.05, count=3)))) == 3
        await asyncio.sleep(0.06)
        assert not rig.engine.cancel("a")
        assert len(await read(submit(rig.engine, in_time("a", 5.0, count=3)))) == 3


async def test_a_deadline_that_has_passed_is_refused() -> None:
    """Nothing is queued; the refusal comes at once."""
    async with running() as rig:
        with pytest.raises(DeadlineExceeded):
            submit(rig.engine, in_time("a", -0.001))
        assert not rig.scheduler.waiting


async def test_a_deadline_too_short_for_the_first_token_starts_no_work() -> None:
    """Three steps of 16 tokens take at least 1.5 s: with 1.4 s left none is computed, with 1.8 s all are."""
    async with running() as rig:
        rig.steps.observe(16, 0.5)
        rig.steps.observe(16, 0.5)
        short, long = (in_time(str(seconds), seconds, num_input=48, count=1) for seconds in (1.4, 1.8))
        with pytest.raises(DeadlineExceeded, match="too short"):
            await read(submit(rig.engine, short))
        assert not rig.model.step_tokens
        assert len(await read(submit(rig.engine, long))) == 1


async def test_a_deadline_ends_a_waiting_group() -> None:
    """Prompt owner and siblings that wait behind others get the error, each its own, and the queue is empty."""
    async with running(step_seconds=0.02) as rig:
        busy = [rig.submit([number], 30) for number in range(8)]
        deadline = time.monotonic() + 0.05
        group = [Request(str(n), (1, 2), SamplingParams(), 4, deadline=deadline) for n in range(3)]
        results = await asyncio.gather(*map(read, rig.engine.submit_group(group)), return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineExceeded] * 3
        assert not rig.scheduler.waiting
        for stream in busy:
            assert len(await read(stream)) == 30


async def test_a_cached_prompt_counts_little_against_a_deadline() -> None:
    """Cached tokens take no time: a deadline too short for the whole prompt is enough for its end."""
    async with running() as rig:
        await read(submit(rig.engine, in_time("first", 5.0, num_input=48, count=1)))
        rig.steps.observe(16, 0.5)
        assert len(await read(submit(rig.engine, in_time("second", 1.0, num_input=48, count=1)))) == 1
