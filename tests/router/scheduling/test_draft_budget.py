"""Draft tokens in the router: when they are allowed, and what becomes of several tokens of one step."""

import asyncio
from random import Random

import pytest
from msgspec.structs import replace

from fake_shards import FakeModel, FakeShards, byte_tokenizer, expected, submit
from fakes import INFO
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.step_pipeline import StepPipeline
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.step_metrics import StepMetrics
from peregrine_router.request import FinishReason, Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import PATIENCE, PLAIN_EVERY, DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.protocol import PROBE_INTERVAL, Step, StepResult, pack

BLOCK_SIZE = 4


def make_scheduler(most: int = 6, rows: int = 8, num_blocks: int = 64, max_batch_size: int = 8) -> Scheduler:
    return Scheduler(
        BlockPool(num_blocks, BLOCK_SIZE),
        FairPolicy(max_batch_size, lead=16),
        max_batch_size=max_batch_size,
        max_step_tokens=16,
        eos_token_ids=frozenset({3}),
        speculation=DraftBudget(most, rows),
    )


def make_request(name: str, length: int = 3, new: int = 20) -> Request:
    return Request(name, tuple(range(10, 10 + length)), SamplingParams(), new, tenant=name)


def next_step(scheduler: Scheduler) -> Step:
    step = scheduler.schedule()
    assert step is not None
    return step


class AcceptingShards(FakeShards):
    """Shards that propose all the draft tokens that they may, and accept all."""

    def __init__(self) -> None:
        super().__init__(FakeModel(64, BLOCK_SIZE, AlwaysMost()))


class AlwaysMost(Random):
    def randint(self, a: int, b: int) -> int:
        return b


def answer(step: Step, slot: int, tokens: list[int]) -> StepResult:
    """A result with these tokens for the slot."""
    return StepResult(step.id, pack([slot] * len(tokens)), pack(tokens), b"")


@pytest.mark.parametrize(("count", "num_drafts"), [(1, 6), (2, 3), (3, 1), (4, 1), (5, 0)])
def test_the_more_sequences_the_fewer_draft_tokens(count: int, num_drafts: int) -> None:
    """Sequences and draft tokens together are at most the rows that are nearly free."""
    scheduler, model = make_scheduler(), FakeModel(64, BLOCK_SIZE)
    for i in range(count):
        submit(scheduler, make_request(str(i)))
    scheduler.commit(model.execute(next_step(scheduler)))
    assert next_step(scheduler).max_draft_tokens == num_drafts


def test_no_drafts_while_a_prompt_is_computed() -> None:
    """Its chunks need the rows."""
    scheduler, model = make_scheduler(), FakeModel(64, BLOCK_SIZE)
    submit(scheduler, make_request("a"))
    scheduler.commit(model.execute(next_step(scheduler)))
    submit(scheduler, make_request("b", length=40))
    allowed_drafts = []
    for _ in range(4):
        step = next_step(scheduler)
        scheduler.commit(model.execute(step))
        allowed_drafts.append(step.max_draft_tokens)
    assert allowed_drafts == [0, 0, 0, 3]


def test_drafts_beside_requests_that_wait_for_a_slot() -> None:
    """A small batch that is full is small all the same, and who waits is served the sooner."""
    scheduler, model = make_scheduler(max_batch_size=1), FakeModel(64, BLOCK_SIZE)
    for name in "ab":
        submit(scheduler, make_request(name))
    scheduler.commit(model.execute(next_step(scheduler)))
    assert next_step(scheduler).max_draft_tokens == 6


def test_no_drafts_where_blocks_are_few() -> None:
    """None would be left for the next token of each sequence."""
    scheduler, model = make_scheduler(num_blocks=7), FakeModel(7, BLOCK_SIZE)
    for name, length in (("a", 3), ("b", 16)):
        submit(scheduler, make_request(name, length, new=4))
        scheduler.commit(model.execute(next_step(scheduler)))
    assert next_step(scheduler).max_draft_tokens == 0


def allowed(scheduler: Scheduler, count: int, *, drafted: int = 0) -> dict[int, int]:
    """The draft tokens that each of the next steps allows, by step id. Up to `drafted` of them are said to be
    proposed."""
    steps = []
    for _ in range(count):
        step = next_step(scheduler)
        result = answer(step, 0, [5])
        scheduler.commit(replace(result, num_draft_tokens=min(drafted, step.max_draft_tokens)))
        steps.append(step)
    return {step.id: step.max_draft_tokens for step in steps}


def test_where_nothing_is_drafted_few_steps_speculate() -> None:
    """After four in a row, only those in which shards probe; a new sequence ends the backoff at once."""
    scheduler = make_scheduler()
    submit(scheduler, make_request("a", new=90))
    found = allowed(scheduler, 1 + PATIENCE + 60)
    asking = [step_id for step_id, most in found.items() if most]
    assert asking == [*range(1, 1 + PATIENCE), *range(PROBE_INTERVAL, max(found) + 1, PROBE_INTERVAL)]
    submit(scheduler, make_request("b"))
    model_answer = next_step(scheduler)
    scheduler.commit(StepResult(model_answer.id, pack([0, 1]), pack([5, 5]), b""))
    assert next_step(scheduler).max_draft_tokens > 0


def test_a_plain_step_now_and_then() -> None:
    """However many drafts are accepted: their cost is known by comparison with it."""
    scheduler = make_scheduler(num_blocks=256)
    submit(scheduler, make_request("a", new=400))
    found = allowed(scheduler, 3 * PLAIN_EVERY, drafted=6)
    without = [step_id for step_id, most in found.items() if not most]
    assert without == [0, *range(PLAIN_EVERY - 1, 3 * PLAIN_EVERY, PLAIN_EVERY)]


async def test_shards_are_told_what_verification_costs() -> None:
    """As observed: here a step with six draft tokens takes four times as long."""
    shards, scheduler = AcceptingShards(), make_scheduler()
    pipeline = StepPipeline(shards, scheduler.in_flight, [scheduler.speculation.cost])
    submit(scheduler, make_request("a", new=100))
    costs = []
    scheduler.speculation.cost.observe(1, 0, 0.005)
    while (step := scheduler.schedule()) is not None:
        shards.step_seconds = 0.02
        await pipeline.send(step)
        scheduler.commit(await pipeline.receive())
        costs += [step.draft_cost] * (step.max_draft_tokens > 0)
    (fixed, each), (fixed_later, each_later) = costs[0], costs[-1]
    assert fixed + 6 * each < 0.5
    assert fixed_later + 6 * each_later > 1.5


def test_tokens_behind_the_end_are_dropped() -> None:
    """An end of text among the tokens of a step ends the answer there."""
    scheduler = make_scheduler()
    sequence = submit(scheduler, make_request("a"))
    scheduler.commit(answer(next_step(scheduler), 0, [5]))
    gained = scheduler.commit(answer(next_step(scheduler), 0, [6, 3, 7, 8]))
    assert [(each.index, each.token_id, each.finish_reason) for each in gained] == [
        (2, 6, None),
        (3, 3, FinishReason.EOS_TOKEN),
    ]
    assert sequence.token_ids[3:] == [5, 6, 3]
    scheduler.check_integrity()


def test_tokens_behind_the_length_are_dropped() -> None:
    """An answer is never longer than it was asked to be."""
    scheduler = make_scheduler()
    sequence = submit(scheduler, make_request("a", new=3))
    scheduler.commit(answer(next_step(scheduler), 0, [5]))
    scheduler.commit(answer(next_step(scheduler), 0, [6, 7, 8, 9]))
    assert sequence.token_ids[3:] == [5, 6, 7]
    assert sequence.finish_reason is FinishReason.LENGTH


def test_no_drafts_where_a_group_forks() -> None:
    """The last token of a prompt is computed like a decode, but others begin behind it."""
    scheduler, model = make_scheduler(), FakeModel(64, BLOCK_SIZE)
    scheduler.submit_group([make_request("a", length=17), make_request("b", length=17)])
    scheduler.commit(model.execute(next_step(scheduler)))
    step = next_step(scheduler)
    assert (step.num_decodes, len(step.forks), step.max_draft_tokens) == (1, 1, 0)


def test_a_long_answer_takes_blocks_for_its_drafts() -> None:
    """With a step in flight, for the draft tokens of both; near its end, for no more than it can have."""
    scheduler = make_scheduler()
    sequence = submit(scheduler, make_request("a", new=10))
    scheduler.commit(answer(next_step(scheduler), 0, [5]))
    next_step(scheduler)
    assert len(sequence.blocks) * BLOCK_SIZE >= 3 + 1 + 6
    next_step(scheduler)
    assert len(sequence.blocks) == 4
    scheduler.check_integrity()


async def test_the_tokens_of_a_step_are_read_together() -> None:
    """Seven tokens wake their reader once."""
    shards = AcceptingShards()
    engine = Engine(shards, make_scheduler(), byte_tokenizer())
    stepping = asyncio.create_task(engine.run())
    stream = submit(engine, Request("a", (1, 2, 4), SamplingParams(), 15, ignore_eos=True))
    events = []
    while batch := await stream.take():
        events.append(batch)
    stepping.cancel()
    await asyncio.gather(stepping, return_exceptions=True)
    assert [event.token.id for batch in events for event in batch] == expected([1, 2, 4], 15)
    assert [event.index for batch in events for event in batch] == [*range(1, 16)]
    assert max(map(len, events)) == 7


async def test_a_stop_string_hides_the_tokens_behind_it() -> None:
    """The step that completes it yields more: the answer has none of them, in its text, its events and its count."""
    tokens = expected([1, 2, 4], 15)
    texts = [byte_tokenizer().decode([token]) for token in tokens]
    at = next(i for i, text in enumerate(texts) if i % 7 and text.isascii() and text not in texts[:i])
    stop = texts[at]
    engine = Engine(AcceptingShards(), make_scheduler(), byte_tokenizer())
    stepping = asyncio.create_task(engine.run())
    stream = submit(engine, Request("a", (1, 2, 4), SamplingParams(), 15, (stop,), ignore_eos=True))
    events = []
    while batch := await stream.take():
        events += batch
    stepping.cancel()
    await asyncio.gather(stepping, return_exceptions=True)
    assert [event.token.id for event in events] == tokens[: at + 1]
    finished = events[-1].finished
    assert finished is not None
    assert (finished.reason, finished.generated_tokens) == (FinishReason.STOP_SEQUENCE, at + 1)


async def test_draft_tokens_are_counted() -> None:
    """The proposed and accepted ones, and how many tokens a step gave each sequence, under TGI's name."""
    shards, metrics = AcceptingShards(), Metrics(INFO)
    engine = Engine(shards, make_scheduler(), byte_tokenizer(), observers=[StepMetrics(metrics)], overlaps=False)
    metrics.watch(engine)
    stepping = asyncio.create_task(engine.run())
    stream = submit(engine, Request("a", (1, 2, 4), SamplingParams(), 15, ignore_eos=True))
    while await stream.take():
        pass
    stepping.cancel()
    await asyncio.gather(stepping, return_exceptions=True)
    lines = metrics.render().decode().splitlines()
    assert engine.stats.accepted_tokens == 12
    assert "peregrine_accepted_tokens_total 12.0" in lines
    assert "tgi_request_skipped_tokens_sum 12.0" in lines
    assert "tgi_request_skipped_tokens_count 2.0" in lines
