"""The overlapped loop beside the plain one, on a real model in float32: grammars, forks, prompt log-probabilities."""

import asyncio
from collections import deque
from random import Random
from typing import Any

import pytest

from fake_shards import LivingShards, events_of
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Cancelled, Request, SamplingParams, TokenEvent
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import Grammar, Step, StepResult, decode_to_shard, encode
from runners import free_draft_budget, load_runner, make_scheduler

pytestmark = pytest.mark.slow

EOS = 0
TOKENIZER = Tokenizer.load(demo_path())
PROMPTS = [tuple(TOKENIZER.encode(f"Once upon a time there was a {who}")) for who in ("fox", "dog who", "bird")]
REPETITIVE = tuple(TOKENIZER.encode("The fox saw the bird. The bird saw the fox. The fox saw the bird. The bird saw"))


class RunnerShards(LivingShards):
    """A runner in this process: executes what is sent in order, answers after random times."""

    def __init__(self, runner: Runner, random: Random) -> None:
        self.runner = runner
        self.random = random
        self.answers: deque[StepResult] = deque()

    async def send(self, step: Step) -> None:
        decoded = decode_to_shard(encode(step))
        assert isinstance(decoded, Step)
        self.answers.append(self.runner.execute(decoded))

    async def receive(self) -> StepResult:
        await asyncio.sleep(self.random.choice([0, 0.001, 0.003]))
        return self.answers.popleft()


@pytest.fixture(scope="module")
def runner() -> Runner:
    return load_runner(demo_path(), eos_token_ids=(EOS,))


def make_groups(prompts: list[tuple[int, ...]]) -> list[list[Request]]:
    """One of everything that depends on the tokens before."""
    random = Random(3)
    kinds: list[dict[str, Any]] = [
        {},
        {"do_sample": True, "temperature": 1.3},
        {"grammar": Grammar("regex", "([a-z]{2,7} ){2,4}end"), "do_sample": True},
        {"grammar": Grammar("json_schema", '{"type": "object", "properties": {"a": {"enum": [1, 22]}}}')},
        {"repetition_penalty": 1.3, "presence_penalty": 0.5, "watermark": True},
        {"prompt_logprobs": True, "logprobs": True, "top_n_tokens": 3},
        {"min_tokens": 8, "end_token_ids": (EOS,), "logit_bias": ((EOS, 5.0),)},
    ]
    groups = []
    for i, kind in enumerate(kinds * 2):
        prompt, count = random.choice(prompts), random.randrange(6, 40)
        groups.append(
            [
                Request(f"{i}-{seed}", prompt, SamplingParams(seed=seed, **kind), count, stop=(" her",))
                for seed in range(random.choice([1, 1, 3]))
            ]
        )
    return groups


async def read(generation: RequestStream, leaves: bool) -> list[TokenEvent]:
    events = []
    try:
        async for event in events_of(generation):
            events.append(event)
            if leaves and len(events) == 3:
                break
        await generation.aclose()
    except Cancelled:
        pass
    return events


async def outcomes(
    runner: Runner, scheduler: Scheduler, overlaps: bool, prompts: list[tuple[int, ...]] = PROMPTS
) -> list[list[TokenEvent]]:
    engine = Engine(RunnerShards(runner, Random(1)), scheduler, TOKENIZER, overlaps=overlaps)
    stepping = asyncio.create_task(engine.run())
    readers = []
    for number, group in enumerate(make_groups(prompts)):
        for generation in engine.submit_group(group):
            readers.append(asyncio.create_task(read(generation, leaves=number % 5 == 4)))
        await asyncio.sleep(0.002)
    results = await asyncio.gather(*readers)
    assert scheduler.pool.num_used == 0
    # The runner outlives the engine: the slots of the last sequences are to be free for the next one's.
    assert runner.execute(scheduler.heartbeat()).slots == b""
    stepping.cancel()
    await asyncio.gather(stepping, return_exceptions=True)
    return results


def rounded(events: list[TokenEvent]) -> list[Any]:
    """Events to compare: float32 sums differ in the last digits when a batch is put together otherwise."""
    return [
        (
            event.token.id,
            event.text_delta,
            event.finished and (event.finished.reason, event.finished.generated_text),
            [top.id for top in event.top_tokens],
            [pytest.approx(token.logprob, abs=1e-3) for token in event.prefill],
        )
        for event in events
    ]


@pytest.mark.parametrize("num_blocks", [192, 24])
async def test_both_loops_give_the_same_tokens(num_blocks: int, runner: Runner) -> None:
    """Greedy, sampled, constrained, penalised, forked and scored requests; some leave, some are preempted."""
    schedulers = [make_scheduler(num_blocks, max_step_tokens=32, eos=frozenset({EOS})) for _ in range(2)]
    plain = await outcomes(runner, schedulers[0], overlaps=False)
    overlapped = await outcomes(runner, schedulers[1], overlaps=True)
    assert list(map(rounded, overlapped)) == list(map(rounded, plain))
    assert (schedulers[1].num_preemptions > 0) == (num_blocks == 24)
    reasons = {events[-1].finished.reason for events in plain if events[-1].finished}
    assert len(reasons) == 3


@pytest.mark.parametrize("overlaps", [False, True])
async def test_draft_tokens_give_the_same_tokens(overlaps: bool, runner: Runner) -> None:
    """All of these requests, in steps that are sent before it is known how many tokens the last one gave."""
    scheduler = make_scheduler(max_step_tokens=32, eos=frozenset({EOS}), speculation=free_draft_budget(8, 64))
    speculating = load_runner(demo_path(), eos_token_ids=(EOS,), max_draft_tokens=8)
    prompts = [*PROMPTS, REPETITIVE, REPETITIVE[:-5]]
    plain = await outcomes(runner, make_scheduler(max_step_tokens=32, eos=frozenset({EOS})), False, prompts)
    speculated = await outcomes(speculating, scheduler, overlaps, prompts)
    assert list(map(rounded, speculated)) == list(map(rounded, plain))
    assert scheduler.speculation.num_accepted > 0
