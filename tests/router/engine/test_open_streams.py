"""Requests that begin and end: ids, the queue limit, cancellation."""

import asyncio

import pytest

from engines import make_request, read, running, until
from fake_shards import expected
from peregrine_router.admission.limits import QueueLimit
from peregrine_router.request import (
    Cancelled,
    InvalidRequest,
    Overloaded,
)


async def test_an_id_in_use_is_refused() -> None:
    """Two running requests of one id would share a stream; the second is told to choose another."""
    async with running(step_seconds=0.001) as rig:
        first = rig.submit([1], 20)
        with pytest.raises(InvalidRequest, match="in use"):
            rig.submit([1], 20)
        assert len(await read(first)) == 20
        assert len(await read(rig.submit([1], 20))) == 20


@pytest.mark.parametrize("leaver", [0, 1])
async def test_closing_a_stream_frees_its_blocks_within_two_steps(leaver: int) -> None:
    """On the shards as well; a neighbour, or the other member of its group, goes on."""
    async with running(step_seconds=0.001) as rig:
        group = rig.engine.submit_group(make_request([1, 2, 3], 100, seed) for seed in range(2))
        neighbour = rig.submit([4], 100)
        await group[leaver].take()
        await neighbour.take()
        steps = len(rig.model.batch_sizes)
        await group[leaver].aclose()
        assert len(rig.scheduler.running) == 2
        await until(lambda: len(rig.model.blocks) == 2)
        assert len(rig.model.batch_sizes) <= steps + 2
        rig.scheduler.check_integrity()
        rest = await read(group[1 - leaver])
        assert rest[-1].token.id == expected([1, 2, 3], 100, 1 - leaver)[-1]
        assert (await read(neighbour))[-1].token.id == expected([4], 100)[-1]
        assert rig.scheduler.pool.num_used == 0


async def test_siblings_go_on_when_the_prompt_owner_is_cancelled() -> None:
    """The sequence that computes the prompt for all may be cancelled at any time; a sibling computes it instead."""
    async with running(step_seconds=0.001) as rig:
        prompt = [i % 7 for i in range(100)]
        prompt_owner, *others = rig.engine.submit_group(make_request(prompt, 4, seed) for seed in range(3))
        await until(lambda: len(rig.model.batch_sizes) == 2)
        await prompt_owner.aclose()
        results = await asyncio.gather(*map(read, others))
        assert [[event.token.id for event in events] for events in results] == [
            expected(prompt, 4, seed) for seed in (1, 2)
        ]


async def test_cancelling_a_request_ends_its_stream_with_an_error() -> None:
    """A reader that waits for a token gets Cancelled and not silence; a second cancellation finds nothing to end."""
    async with running(step_seconds=0.001) as rig:
        stream = rig.submit([1], 200)
        reader = asyncio.create_task(read(stream))
        await until(lambda: len(rig.scheduler.running) == 1)
        assert rig.engine.cancel(stream.sequence.request.id)
        with pytest.raises(Cancelled):
            await reader
        assert rig.scheduler.pool.num_used == 0
        assert not rig.engine.cancel(stream.sequence.request.id)


async def test_a_request_larger_than_the_cache_is_invalid() -> None:
    """It is refused at once, with the numbers."""
    async with running(num_blocks=2) as rig:
        with pytest.raises(InvalidRequest, match="never fit"):
            rig.submit([1] * 8, 1)


async def test_a_full_queue_refuses_and_says_until_when() -> None:
    """Eight run, two wait, the next is refused with the time that the drain rate makes it; a free place takes it."""
    async with running(step_seconds=0.01, bound=QueueLimit(max_requests=2)) as rig:
        streams = [rig.submit([number], 20) for number in range(8)]
        await until(lambda: len(rig.scheduler.running) == 8)
        streams += [rig.submit([number], 20) for number in (8, 9)]
        with pytest.raises(Overloaded) as refused:
            rig.submit([10], 20)
        assert 1.0 <= refused.value.retry_after <= 60.0
        await read(streams[0])
        await until(lambda: rig.scheduler.num_waiting < 2)
        assert len(await read(rig.submit([10], 20))) == 20
