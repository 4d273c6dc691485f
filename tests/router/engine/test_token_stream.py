"""The stream of one request."""

import asyncio

from engines import read, running, until
from fake_shards import expected
from peregrine_router.request import (
    FinishReason,
)


async def test_events_carry_the_tokens_in_order() -> None:
    """Indices count from 1, the last event alone is final, and the deltas join to its text."""
    async with running() as rig:
        events = await read(rig.submit([1, 2, 3], 20))
    assert [event.token.id for event in events] == expected([1, 2, 3], 20)
    assert [event.index for event in events] == list(range(1, 21))
    assert [event.finished is not None for event in events] == [False] * 19 + [True]
    last = events[-1].finished
    assert last is not None
    assert last.reason is FinishReason.LENGTH
    assert "".join(event.text_delta for event in events) == last.generated_text


async def test_cancelling_the_reading_task_cancels_its_request() -> None:
    """The task of a request that the web server gives up takes the generation with it."""
    async with running(step_seconds=0.001) as rig:
        task = asyncio.create_task(read(rig.submit([1], 200)))
        await until(lambda: len(rig.scheduler.running) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: rig.scheduler.pool.num_used == 0)
