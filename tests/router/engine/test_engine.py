"""The engine's loop on shards without a model."""

import asyncio

import pytest

from engines import Rig, make_request, read, running, until
from fake_shards import expected
from peregrine_router.engine import engine as engine_module
from peregrine_router.request import (
    EngineDead,
    GenerationFailed,
    InvalidRequest,
    Request,
    SamplingParams,
    ServerStopping,
)
from peregrine_server.protocol import StepResult


async def test_a_group_is_queued_whole_or_not_at_all() -> None:
    """If one request of a group can never fit, none of them runs."""
    async with running(num_blocks=4) as rig:
        small, large = (Request(f"{n}", (1, 2), SamplingParams(), n) for n in (4, 100))
        with pytest.raises(InvalidRequest):
            rig.engine.submit_group([small, large])
        assert not rig.scheduler.waiting
        assert not rig.scheduler.running


async def test_a_group_draws_apart_from_one_prompt() -> None:
    """Each member gets its own seed's tokens, and the prompt is computed once."""
    async with running() as rig:
        group = rig.engine.submit_group(make_request([1, 2, 3], 5, seed) for seed in range(3))
        results = await asyncio.gather(*map(read, group))
        assert rig.scheduler.pool.num_used == 0
    for seed, events in enumerate(results):
        assert [event.token.id for event in events] == expected([1, 2, 3], 5, seed)
    assert sum(rig.model.step_tokens) == 3 + 3 * 4
    assert all(stream.scheduled_at is not None for stream in group)


async def test_requests_of_several_prompts_form_groups_of_their_own() -> None:
    """Two prompts of two requests each, queued together, are each computed once."""
    async with running() as rig:
        requests = [make_request(prompt, 3, seed) for prompt in ([1, 2, 3], [4, 5]) for seed in range(2)]
        results = await asyncio.gather(*map(read, rig.engine.submit_group(requests)))
    for request, events in zip(requests, results, strict=True):
        assert [event.token.id for event in events] == expected(request.prompt_ids, 3, request.sampling.seed)
    assert sum(rig.model.step_tokens) == 3 + 2 + 4 * 2


async def test_requests_of_two_adapters_form_groups_of_their_own() -> None:
    """One prompt under two adapter names, queued together, is computed once for each; no block has two owners."""
    async with running() as rig:
        prompt = tuple(range(9))
        requests = [
            Request(f"{adapter}{seed}", prompt, SamplingParams(seed=seed), 3, adapter=adapter)
            for adapter in "ab"
            for seed in range(2)
        ]
        streams = rig.engine.submit_group(requests)
        assert [stream.sequence.prompt_owner for stream in streams[::2]] == [None, None]
        results = await asyncio.gather(*map(read, streams))
    assert [[event.token.id for event in events] for events in results] == [expected(prompt, 3, s) for s in (0, 1)] * 2
    assert sum(rig.model.step_tokens) == 2 * 9 + 4 * 2


async def test_many_requests_run_together_and_keep_their_tokens() -> None:
    """Twenty requests in a cache for a few of them all end with their own tokens, and free every block."""
    async with running(num_blocks=24) as rig:
        results = await asyncio.gather(*(read(rig.submit([i, i + 1], 30)) for i in range(20)))
        assert rig.scheduler.pool.num_used == 0
    for i, events in enumerate(results):
        assert [event.token.id for event in events] == expected([i, i + 1], 30)
    assert max(rig.model.batch_sizes) > 1


async def test_a_failed_shard_fails_every_request_and_health() -> None:
    """Nobody waits for ever: running and later requests raise, and the server is not healthy."""
    rig = Rig(64, 0.001)
    task = asyncio.create_task(rig.engine.run())
    stream = rig.submit([1], 200)
    await stream.take()
    assert rig.engine.is_healthy
    rig.shards.failure = RuntimeError("shard 0 was killed")
    assert not rig.engine.is_healthy
    with pytest.raises(EngineDead, match="the server has failed: send the request again"):
        await read(stream)
    with pytest.raises(RuntimeError, match="shard 0 was killed"):
        await task
    with pytest.raises(GenerationFailed):
        rig.submit([2], 1)


async def test_an_idle_engine_ends_with_its_shards() -> None:
    """At once: it does not wait for the next heartbeat to find out."""
    rig = Rig(64, 0.0)
    task = asyncio.create_task(rig.engine.run())
    await asyncio.sleep(0.05)
    rig.shards.give_up("shard 0 was killed")
    async with asyncio.timeout(1):
        with pytest.raises(RuntimeError, match="shard 0 was killed"):
            await task


async def test_a_stalled_step_makes_the_server_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that lives but does not answer is noticed by the time of its step."""
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.02)
    async with running(step_seconds=0.5) as rig:
        stream = rig.submit([1], 5)
        assert rig.engine.is_healthy
        await until(lambda: not rig.engine.is_healthy)
        await stream.aclose()


@pytest.mark.slow
async def test_a_stall_is_noticed_with_two_steps_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step's time counts from the end of the one before it, so steps that wait in line are not overdue."""
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.5)
    async with running(step_seconds=0.3) as rig:
        stream = rig.submit([1], 100)
        for _ in range(3):
            await stream.take()
            assert rig.engine.is_healthy
        rig.shards.step_seconds = 5.0
        await until(lambda: not rig.engine.is_healthy)


async def test_a_step_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards live, and one step makes no progress: the engine ends, and so does every request."""
    monkeypatch.setattr(engine_module, "WATCH_SECONDS", 0.02)
    rig = Rig(64, 0.0, step_timeout=0.2)
    hung = asyncio.Event()
    give_up = rig.shards.give_up
    receive = rig.shards.receive

    async def receive_or_hang() -> StepResult:
        if len(rig.model.batch_sizes) > 3:
            await hung.wait()
        return await receive()

    def give_up_and_wake(reason: str) -> None:
        give_up(reason)
        hung.set()

    monkeypatch.setattr(rig.shards, "receive", receive_or_hang)
    monkeypatch.setattr(rig.shards, "give_up", give_up_and_wake)
    stream = rig.submit([1], 200)
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="the shards did not finish a step in 0 s"):
            await rig.engine.run()
        with pytest.raises(EngineDead):
            await read(stream)


async def test_steps_that_end_are_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long many of them take together, and however long the engine is idle."""
    monkeypatch.setattr(engine_module, "WATCH_SECONDS", 0.01)
    async with running(step_seconds=0.02, step_timeout=0.2) as rig:
        assert len(await read(rig.submit([1], 25))) == 25
        await asyncio.sleep(0.3)
        assert rig.shards.failure is None


async def test_shards_that_show_no_sign_of_life_are_unhealthy() -> None:
    """Also while no step is in flight."""
    async with running() as rig:
        assert rig.engine.is_healthy
        rig.shards.is_responsive = False
        assert not rig.engine.is_healthy


async def test_a_stopped_engine_ends_and_refuses_requests() -> None:
    """With the error that it was stopped with; blocks and slots are free."""
    async with running(step_seconds=0.01) as rig:
        streams = [rig.submit([number], 200) for number in range(10)]
        await streams[0].take()
        rig.engine.stop(ServerStopping("the end"))
        for stream in streams:
            with pytest.raises(ServerStopping, match="the end"):
                await read(stream)
        with pytest.raises(ServerStopping, match="the end"):
            rig.submit([1], 1)
        assert not rig.engine.is_healthy
        await until(lambda: rig.scheduler.pool.num_used == 0)


async def test_an_idle_engine_sends_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without requests the shards are asked all the same, so that health is known."""
    monkeypatch.setattr(engine_module, "HEARTBEAT_SECONDS", 0.01)
    async with running() as rig:
        await until(lambda: len(rig.model.batch_sizes) >= 3)
    assert set(rig.model.batch_sizes) == {0}
