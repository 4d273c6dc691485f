"""Tokens of one stream that share a write while the event loop cannot keep up."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from peregrine_router.engine import output_batching
from peregrine_router.engine.mailbox import Mailbox
from peregrine_router.engine.output_batching import (
    MAX_TOKENS_PER_FLUSH,
    MIN_TOKENS_PER_FLUSH,
    EventLoopLoad,
    OutputBatcher,
)
from peregrine_router.request import Finished, FinishReason, Token, TokenEvent


def make_event(index: int, finished: Finished | None = None) -> TokenEvent:
    return TokenEvent(index, Token(index, "a"), "a", finished=finished)


class Reader:
    """Takes what it is woken for."""

    def __init__(self) -> None:
        self.box: Mailbox[TokenEvent] = Mailbox()
        self.batches: list[int] = []

    async def run(self) -> None:
        while True:
            self.batches.append(len(await self.box.take()))


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    reader = Reader()
    task = asyncio.create_task(reader.run())
    await asyncio.sleep(0)
    yield reader
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def step(batcher: OutputBatcher, *puts: tuple[Reader, TokenEvent], is_high: bool) -> None:
    batcher.start_step()
    batcher.load.is_high = is_high
    for reader, event in puts:
        batcher.put(reader.box, event)
    batcher.end_step()
    await asyncio.sleep(0)


async def test_without_pressure_every_token_wakes_its_stream(reader: Reader) -> None:
    """One wakeup a token, in the step it came with."""
    batcher = OutputBatcher()
    for index in range(1, 6):
        await step(batcher, (reader, make_event(index)), is_high=False)
        assert sum(reader.batches) == index


async def test_under_pressure_tokens_come_together(reader: Reader) -> None:
    """Between the first and the last, which never wait, a wakeup serves as many as may share one."""
    batcher, count = OutputBatcher(), 2 * MIN_TOKENS_PER_FLUSH + 3
    for index in range(1, count):
        await step(batcher, (reader, make_event(index)), is_high=True)
    await step(batcher, (reader, make_event(count, Finished(FinishReason.LENGTH, "", count))), is_high=True)
    assert reader.batches == [1, MIN_TOKENS_PER_FLUSH, MIN_TOKENS_PER_FLUSH, 2]


async def test_nobody_waits_for_a_token_that_does_not_come(reader: Reader) -> None:
    """A stream whose sequence is in no further step gets what is there all the same, after so many steps."""
    batcher = OutputBatcher()
    for index in (1, 2):
        await step(batcher, (reader, make_event(index)), is_high=True)
    for _ in range(MIN_TOKENS_PER_FLUSH - 1):
        assert reader.batches == [1]
        await step(batcher, is_high=True)
    assert reader.batches == [1, 1]


@pytest.mark.parametrize(
    ("step_seconds", "tokens_per_flush"), [(0.0001, MAX_TOKENS_PER_FLUSH), (0.01, MIN_TOKENS_PER_FLUSH)]
)
def test_short_steps_bring_more_tokens_together(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float, tokens_per_flush: int
) -> None:
    """As many as a reader does not notice the lateness of; more than a few where steps take milliseconds."""
    monkeypatch.setattr(output_batching, "WINDOW_SECONDS", 0.03)
    load = EventLoopLoad()
    for _ in range(round(0.04 / step_seconds)):
        load.record_result()
        time.sleep(step_seconds)
    assert load.tokens_per_flush == tokens_per_flush


@pytest.mark.parametrize(("shard_seconds", "is_high"), [(0.0, True), (0.004, False)], ids=["behind", "in time"])
async def test_pressure_is_an_answer_that_waits(
    monkeypatch: pytest.MonkeyPatch, shard_seconds: float, is_high: bool
) -> None:
    """It is high if the next answer is there as soon as the streams have written, not if the shards take their time."""
    monkeypatch.setattr(output_batching, "WINDOW_SECONDS", 0.03)
    load, loop = EventLoopLoad(), asyncio.get_running_loop()
    for _ in range(40):
        load.record_result()
        loop.call_soon(time.sleep, 0.001)  # The streams write.
        load.record_wakeups()
        await asyncio.sleep(shard_seconds)
    load.record_result()
    assert load.is_high is is_high
