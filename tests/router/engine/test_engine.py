"""The engine's loop on shards without a model."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from fake_shards import FakeModel, FakeShards, byte_tokenizer, events_of, expected, submit
from peregrine_router.admission.limits import QueueLimit
from peregrine_router.engine import engine as engine_module
from peregrine_router.engine import output_processor
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.request import (
    Cancelled,
    DeadlineExceeded,
    FinishReason,
    GenerationFailed,
    InvalidRequest,
    Overloaded,
    Request,
    SamplingParams,
    TokenEvent,
)
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler

BLOCK_SIZE = 4


class Rig:
    """An engine on fake shards, and its parts."""

    def __init__(self, num_blocks: int, step_seconds: float, bound: QueueLimit | None = None) -> None:
        self.tokenizer = byte_tokenizer()
        self.model = FakeModel(num_blocks, BLOCK_SIZE)
        self.shards = FakeShards(self.model, step_seconds)
        pool = BlockPool(num_blocks, BLOCK_SIZE)
        self.scheduler = Scheduler(
            pool, FairPolicy(8, lead=16), max_batch_size=8, max_step_tokens=16, eos_token_ids=frozenset()
        )
        self.steps = StepTimes()
        self.engine = Engine(self.shards, self.scheduler, self.tokenizer, bound, self.steps)

    def submit(self, prompt: list[int], count: int, stop: tuple[str, ...] = ()) -> RequestStream:
        return submit(self.engine, make_request(prompt, count, stop=stop))


def make_request(prompt: list[int], count: int, seed: int = 0, stop: tuple[str, ...] = ()) -> Request:
    return Request(f"{prompt}-{count}-{seed}", tuple(prompt), SamplingParams(logprobs=True, seed=seed), count, stop)


@asynccontextmanager
async def running(
    num_blocks: int = 64, step_seconds: float = 0.0, bound: QueueLimit | None = None
) -> AsyncIterator[Rig]:
    rig = Rig(num_blocks, step_seconds, bound)
    task = asyncio.create_task(rig.engine.run())
    yield rig
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def read(generation: RequestStream) -> list[TokenEvent]:
    events: list[TokenEvent] = []
    while more := await generation.take():
        events += more
    return events


async def read_into(events: list[TokenEvent], generation: RequestStream) -> None:
    async for event in events_of(generation):
        events.append(event)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is another object's state, which signals nothing
            await asyncio.sleep(0.001)


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
    assert all(generation.scheduled_at is not None for generation in group)


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


async def test_a_group_shares_the_log_probabilities_of_its_prompt() -> None:
    """The prompt is scored once, for the prompt_owner; every member's first event carries them all."""
    async with running() as rig:
        rig.shards.prompt_logprob = -0.5
        sampling = SamplingParams(prompt_logprobs=True)
        group = rig.engine.submit_group(Request(str(i), (1, 2, 3), sampling, 2) for i in range(2))
        for events in await asyncio.gather(*map(read, group)):
            assert [token.logprob for token in events[0].prefill] == [None, -0.5, -0.5]


async def test_an_id_in_use_is_refused() -> None:
    """Two running requests of one id would share a stream; the second is told to choose another."""
    async with running(step_seconds=0.001) as rig:
        first = rig.submit([1], 20)
        with pytest.raises(InvalidRequest, match="in use"):
            rig.submit([1], 20)
        assert len(await read(first)) == 20
        assert len(await read(rig.submit([1], 20))) == 20


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


async def test_many_requests_run_together_and_keep_their_tokens() -> None:
    """Twenty requests in a cache for a few of them all end with their own tokens, and free every block."""
    async with running(num_blocks=24) as rig:
        results = await asyncio.gather(*(read(rig.submit([i, i + 1], 30)) for i in range(20)))
        assert rig.scheduler.pool.num_used == 0
    for i, events in enumerate(results):
        assert [event.token.id for event in events] == expected([i, i + 1], 30)
    assert max(rig.model.batch_sizes) > 1


async def test_a_stop_sequence_ends_the_text_across_tokens() -> None:
    """A stop string that three tokens make together ends the generation at the third."""
    tokenizer = byte_tokenizer()
    tokens = expected([65], 60)
    # Three neighbouring tokens that are whole characters of their own.
    at = next(i for i in range(60) if all(tokenizer.decode([t]).isascii() for t in tokens[i : i + 3]))
    stop = tokenizer.decode(tokens[at : at + 3])
    async with running() as rig:
        events = await read(rig.submit([65], 60, stop=(stop,)))
        assert rig.scheduler.pool.num_used == 0
    last = events[-1].finished
    assert last is not None
    assert last.reason is FinishReason.STOP_SEQUENCE
    assert last.generated_text.endswith(stop)
    assert last.generated_text.count(stop) == 1
    assert len(events) <= at + 3


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


async def test_a_leader_that_leaves_while_the_prompt_is_computed_leaves_its_group_behind() -> None:
    """Whoever computes the prompt for all may go at any time; another does it instead."""
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
        generation = rig.submit([1], 200)
        reader = asyncio.create_task(read(generation))
        await until(lambda: len(rig.scheduler.running) == 1)
        assert rig.engine.cancel(generation.sequence.request.id)
        with pytest.raises(Cancelled):
            await reader
        assert rig.scheduler.pool.num_used == 0
        assert not rig.engine.cancel(generation.sequence.request.id)


async def test_a_reader_that_does_not_read_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded; it gets that and then an error that says why. Its neighbour goes on."""
    # A neighbour that is held up by the machine for 150 steps of a millisecond would count as slow.
    monkeypatch.setattr(output_processor, "MAX_UNREAD_EVENTS", 150)
    async with running(step_seconds=0.001) as rig:
        slow, neighbour = rig.submit([1], 200), rig.submit([2], 200)
        assert len(await read(neighbour)) == 200
        assert rig.scheduler.pool.num_used == 0
        assert [event.token.id for event in await slow.take()] == expected([1], 150)
        with pytest.raises(GenerationFailed, match="too slowly"):
            await slow.take()


async def test_a_sequence_that_fails_fails_alone() -> None:
    """A shard that gives up on one sequence ends that stream with its message; the other goes on."""
    async with running(step_seconds=0.001) as rig:
        bad, good = rig.submit([1], 100), rig.submit([2], 100)
        await bad.take()
        rig.shards.failed_slot = bad.sequence.slot
        with pytest.raises(GenerationFailed, match="no way on"):
            await read(bad)
        rig.shards.failed_slot = None
        assert (await read(good))[-1].token.id == expected([2], 100)[-1]
        assert rig.scheduler.pool.num_used == 0


async def test_cancelling_the_reading_task_cancels_its_request() -> None:
    """The task of a request that the web server gives up takes the generation with it."""
    async with running(step_seconds=0.001) as rig:
        task = asyncio.create_task(read(rig.submit([1], 200)))
        await until(lambda: len(rig.scheduler.running) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: rig.scheduler.pool.num_used == 0)


async def test_a_failed_shard_fails_every_request_and_health() -> None:
    """Nobody waits for ever: running and later requests raise, and the server is not healthy."""
    rig = Rig(64, 0.001)
    task = asyncio.create_task(rig.engine.run())
    generation = rig.submit([1], 200)
    await generation.take()
    assert rig.engine.is_healthy
    rig.shards.failure = RuntimeError("shard 0 was killed")
    assert not rig.engine.is_healthy
    with pytest.raises(GenerationFailed, match="shard 0 was killed"):
        await read(generation)
    with pytest.raises(RuntimeError, match="shard 0 was killed"):
        await task
    with pytest.raises(GenerationFailed):
        rig.submit([2], 1)


async def test_a_stalled_step_makes_the_server_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that lives but does not answer is noticed by the time of its step."""
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.02)
    async with running(step_seconds=0.5) as rig:
        generation = rig.submit([1], 5)
        assert rig.engine.is_healthy
        await until(lambda: not rig.engine.is_healthy)
        await generation.aclose()


async def test_a_stall_is_noticed_with_two_steps_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step's time counts from the end of the one before it, so steps that wait in line are not overdue."""
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.5)
    async with running(step_seconds=0.3) as rig:
        generation = rig.submit([1], 100)
        for _ in range(3):
            await generation.take()
            assert rig.engine.is_healthy
        rig.shards.step_seconds = 5.0
        await until(lambda: not rig.engine.is_healthy)


async def test_an_idle_engine_sends_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without requests the shards are asked all the same, so that health is known."""
    monkeypatch.setattr(engine_module, "HEARTBEAT_SECONDS", 0.01)
    async with running() as rig:
        await until(lambda: len(rig.model.batch_sizes) >= 3)
    assert set(rig.model.batch_sizes) == {0}


async def test_a_request_larger_than_the_cache_is_invalid() -> None:
    """It is refused at once, with the numbers."""
    async with running(num_blocks=2) as rig:
        with pytest.raises(InvalidRequest, match="never fit"):
            rig.submit([1] * 8, 1)


async def test_the_clock_of_a_request_starts_with_its_first_step() -> None:
    """`scheduled_at` is None in the queue and set once a step works on the request."""
    async with running() as rig:
        generation = rig.submit([1], 2)
        assert generation.scheduled_at is None
        await read(generation)
        assert generation.scheduled_at is not None


def in_time(name: str, seconds: float, num_input: int = 1, count: int = 40) -> Request:
    """A request that must end within `seconds`."""
    return Request(name, (1,) * num_input, SamplingParams(), count, deadline=time.monotonic() + seconds)


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
    """Leader and siblings that wait behind others get the error, each its own, and the queue is empty."""
    async with running(step_seconds=0.02) as rig:
        busy = [rig.submit([number], 30) for number in range(8)]
        deadline = time.monotonic() + 0.05
        group = [Request(str(n), (1, 2), SamplingParams(), 4, deadline=deadline) for n in range(3)]
        results = await asyncio.gather(*map(read, rig.engine.submit_group(group)), return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineExceeded] * 3
        assert not rig.scheduler.waiting
        for generation in busy:
            assert len(await read(generation)) == 30


async def test_a_full_queue_refuses_and_says_until_when() -> None:
    """Eight run, two wait, the next is refused with the time that the measured rate makes it; a free place takes it."""
    async with running(step_seconds=0.01, bound=QueueLimit(max_requests=2)) as rig:
        generations = [rig.submit([number], 20) for number in range(8)]
        await until(lambda: len(rig.scheduler.running) == 8)
        generations += [rig.submit([number], 20) for number in (8, 9)]
        with pytest.raises(Overloaded) as refused:
            rig.submit([10], 20)
        assert 1.0 <= refused.value.retry_after <= 60.0
        await read(generations[0])
        await until(lambda: rig.scheduler.num_waiting < 2)
        assert len(await read(rig.submit([10], 20))) == 20


async def test_a_cached_prompt_counts_little_against_a_deadline() -> None:
    """What is found in the cache takes no time: a deadline too short for the whole prompt is enough for its end."""
    async with running() as rig:
        await read(submit(rig.engine, in_time("first", 5.0, num_input=48, count=1)))
        rig.steps.observe(16, 0.5)
        assert len(await read(submit(rig.engine, in_time("second", 1.0, num_input=48, count=1)))) == 1
