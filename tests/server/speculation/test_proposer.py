"""Speculative decoding on a shard: the same answers in fewer steps, and no draft tokens where they do not pay."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from fake_shards import submit
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.batch.batch import Batch
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import (
    PROBE_INTERVAL,
    Grammar,
    NewSequence,
    Step,
    StepResult,
    decode_to_shard,
    encode,
    pack,
    unpack,
    unpack_floats,
)
from peregrine_server.speculation.proposer import MISSES_BEFORE_BACKOFF, DraftProposer, accepted_rows
from peregrine_server.speculation.token_mirror import HostTokenMirror
from runners import BLOCK_SIZE, free_draft_budget, generated, load_runner, make_scheduler, run, run_step

pytestmark = pytest.mark.slow

EOS = frozenset({0})
TOKENIZER = Tokenizer.load(demo_path())
REPETITIVE = tuple(TOKENIZER.encode("The fox saw the bird. The bird saw the fox. The fox saw the bird. The bird saw"))
STORY = tuple(TOKENIZER.encode("Once upon a time there was a fox who lived in the wood"))
KINDS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "temperature": 0.7},
    {"do_sample": True, "temperature": 1.2, "top_k": 30, "top_p": 0.95},
    {"repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.1, "watermark": True},
    {"logprobs": True, "top_n_tokens": 3},
    {"min_tokens": 20, "end_token_ids": (0, 5), "logit_bias": ((5, 2.0),)},
    {"grammar": Grammar("regex", "(the fox )*end")},
    {"prompt_logprobs": True, "logprobs": True},
]


@pytest.fixture(scope="module")
def runner() -> Runner:
    return load_runner(demo_path(), max_draft_tokens=8, eos_token_ids=(0,))


def speculating(num_blocks: int = 192, rows: int = 64, max_draft_tokens: int = 8) -> Scheduler:
    return make_scheduler(
        num_blocks, max_step_tokens=32, eos=EOS, speculation=free_draft_budget(max_draft_tokens, rows)
    )


def make_requests() -> list[Request]:
    return [
        Request(f"{i}-{j}", prompt, SamplingParams(seed=i, **kind), 30 + 5 * j)
        for i, kind in enumerate(KINDS)
        for j, prompt in enumerate((REPETITIVE, STORY))
    ]


@dataclass
class Answers:
    """A shard's answers by slot: tokens, log-probabilities, likeliest tokens."""

    of: dict[int, list[tuple[int, float | None, list[int], list[float]]]]

    def take(self, result: StepResult) -> None:
        logprobs = unpack_floats(result.logprobs).tolist()
        tops = {top.row: top for top in result.top_tokens}
        pairs = zip(unpack(result.slots).tolist(), unpack(result.token_ids).tolist(), strict=True)
        for row, (slot, token_id) in enumerate(pairs):
            top = tops.get(row)
            ids = unpack(top.token_ids).tolist() if top else []
            values = unpack_floats(top.logprobs).tolist() if top else []
            self.of.setdefault(slot, []).append((token_id, logprobs[row] if logprobs else None, ids, values))


@pytest.mark.parametrize("every", [0, 2])
@pytest.mark.parametrize("num_blocks", [192, 26])
def test_tokens_are_those_without_speculation(num_blocks: int, every: int, runner: Runner) -> None:
    """Greedy, sampled, penalised, constrained and scored sequences that join, leave and are preempted."""
    plain = run(runner, make_scheduler(num_blocks, eos=EOS), make_requests())
    scheduler = speculating(num_blocks)
    speculative = run(runner, scheduler, make_requests(), every=every)
    assert [generated(sequence) for sequence in speculative] == [generated(sequence) for sequence in plain]
    assert scheduler.speculation.num_accepted > 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_alone(kind: dict[str, Any], runner: Runner) -> None:
    """Its tokens are those without speculation, whatever its parameters."""
    request = Request("a", REPETITIVE, SamplingParams(seed=3, **kind), 60)
    (plain,) = run(runner, make_scheduler(eos=EOS), [request])
    (speculative,) = run(runner, speculating(), [request])
    assert generated(speculative) == generated(plain)


def steps_of(runner: Runner, scheduler: Scheduler, requests: list[Request]) -> tuple[list[StepResult], list[Sequence]]:
    results, sequences = [], [submit(scheduler, request) for request in requests]
    while (result := run_step(runner, scheduler)) is not None:
        results.append(result)
    return results, sequences


def test_log_probabilities_are_each_tokens_own(runner: Runner) -> None:
    """Several tokens of one step each have their own log-probability and likeliest tokens."""
    requests = [Request(name, REPETITIVE, SamplingParams(logprobs=True, top_n_tokens=2), 40) for name in "ab"]
    answers = []
    for scheduler in (make_scheduler(eos=EOS), speculating()):
        answers.append(Answers({}))
        for result in steps_of(runner, scheduler, requests)[0]:
            answers[-1].take(result)
    plain, speculative = answers
    for slot, tokens in plain.of.items():
        for (token_id, logprob, ids, values), other in zip(tokens, speculative.of[slot], strict=False):
            expected: Any = (token_id, pytest.approx(logprob, abs=1e-4), ids, pytest.approx(values, abs=1e-4))
            assert other == expected


def test_repetitions_take_fewer_steps(runner: Runner) -> None:
    """A text that repeats itself yields several tokens a step."""
    results, (sequence,) = steps_of(runner, speculating(), [Request("a", REPETITIVE, SamplingParams(), 60)])
    assert sequence.num_generated == 60
    assert len(results) < 30


def test_a_full_batch_proposes_nothing(runner: Runner) -> None:
    """Where two rows a sequence exceed the rows that are nearly free, no draft row is added."""
    requests = [Request(str(i), REPETITIVE, SamplingParams(), 20) for i in range(5)]
    results, _ = steps_of(runner, speculating(rows=9), requests)
    full = [result for result in results if len(set(unpack(result.slots).tolist())) == 5]
    assert full
    assert not any(result.num_draft_tokens for result in full)


def test_an_answer_may_end_at_the_last_place(tmp_path: Path) -> None:
    """A sequence that fills its blocks to the last token drafts nothing beyond them."""
    runner = load_runner(
        demo_path(), max_draft_tokens=8, max_total_tokens=5 * BLOCK_SIZE, max_batch_total_tokens=5 * BLOCK_SIZE
    )
    request = Request("a", REPETITIVE[:16], SamplingParams(), 5 * BLOCK_SIZE - 16)
    (plain,) = run(runner, make_scheduler(num_blocks=5, eos=EOS), [request])
    (speculative,) = run(runner, speculating(num_blocks=5), [request])
    assert generated(speculative) == generated(plain)


def test_accepted_rows_end_at_the_first_rejected_draft_token() -> None:
    """Each sequence keeps the sampled tokens up to and including that position's."""
    # two of two accepted | first rejected | no draft | second rejected
    draft_tokens = [5, 6, -1, 7, 8, -1, -1, 4, 3, -1]
    tokens = [5, 6, 9, 1, 8, 2, 3, 4, 0, 0]
    assert accepted_rows(np.array(draft_tokens), np.array(tokens)).tolist() == [0, 1, 2, 3, 6, 7, 8]


CHEAP, COSTLY = (0.0, 0.05), (0.8, 0.1)


class Alone:
    """One sequence in the only slot, which repeats three tokens over and over."""

    def __init__(self) -> None:
        self.batch = Batch(1, 64, 64, torch.device("cpu"), ())
        self.proposer = DraftProposer(HostTokenMirror(self.batch.token_ids, is_copy=True))
        self.begin([1, 2, 3] * 6)

    def begin(self, tokens: list[int]) -> None:
        new = NewSequence(0, pack(tokens), len(tokens), SamplingParams())
        step = Step(
            0, new=[new], slots=pack([0]), num_tokens=pack([len(tokens)]), block_rows=pack([0]), new_blocks=pack([0])
        )
        self.batch.apply(step)
        self.proposer.propose(step, self.batch)

    def decode(self, step_id: int, cost: tuple[float, float] = CHEAP) -> Step:
        return Step(step_id, slots=pack([0]), num_decodes=1, max_draft_tokens=8, draft_cost=cost)

    def step(self, step_id: int, cost: tuple[float, float] = CHEAP, *, is_accepted: bool = False) -> int:
        """Draft length of a step, all of it accepted or all rejected."""
        slot = np.zeros(1, dtype=np.int64)
        draft = next(iter(self.proposer.propose(self.decode(step_id, cost), self.batch)), slot[:0])
        if len(draft):
            tokens = [*draft.tolist(), 7] if is_accepted else [0] * (len(draft) + 1)
            self.proposer.verify(slot.repeat(len(tokens)), np.array([*draft.tolist(), -1]), np.array(tokens))
        return len(draft)


def test_rejected_drafts_become_rare() -> None:
    """After a few steps one token is drafted in every 16th step, then in every 32nd, and so on up to the 256th."""
    alone = Alone()
    tried = {step_id: count for step_id in range(1, 1025) if (count := alone.step(step_id))}
    first = max(step_id for step_id in tried if step_id < PROBE_INTERVAL)
    assert list(tried)[:first] == [*range(1, first + 1)]
    assert sorted(tried.values(), reverse=True) == list(tried.values())
    rest = [step_id for step_id in tried if step_id > first]
    assert rest == [16, 32, 64, 128, 256, 512, 768, 1024]
    assert {tried[step_id] for step_id in rest} == {1}


def test_accepted_drafts_end_the_backoff() -> None:
    """A sequence that backs off proposes in every step again once its probe is accepted, soon at full length."""
    alone = Alone()
    for step_id in range(1, 128):
        alone.step(step_id)
    counts = [alone.step(step_id, is_accepted=True) for step_id in range(128, 134)]
    assert counts[0] == 1
    assert 0 < counts[1] <= counts[2] <= counts[3]
    assert counts[-1] == 8


def test_costly_drafts_need_higher_acceptance_rates() -> None:
    """At the same acceptance rate, draft tokens that cost more are fewer."""
    assert Alone().step(1, (0.0, 0.0)) == 8
    assert 0 < Alone().step(1, CHEAP) < 8
    assert Alone().step(1, COSTLY) == 1  # a first probe


def test_a_sequence_without_matches_backs_off() -> None:
    """It is looked up in fewer and fewer steps: on CUDA each of those waits for the last step's tokens."""
    alone = Alone()
    alone.begin([*range(1, 19)])
    looked_up = []
    for step_id in range(1, 200):
        looked_up += [step_id] * alone.proposer.proposes_in(alone.decode(step_id))
        assert alone.step(step_id) == 0
    assert looked_up == [*range(1, MISSES_BEFORE_BACKOFF + 1), 16, 32, 64, 128, 192]


def test_a_sequence_starts_from_the_acceptance_rate_of_earlier_ones() -> None:
    """Where the drafts of many sequences were rejected, the next one starts without any."""
    alone = Alone()
    for _ in range(60):
        alone.begin([1, 2, 3] * 6)
        alone.step(1)
    alone.begin([1, 2, 3] * 6)
    assert alone.step(1) == 0


def test_ranks_propose_alike() -> None:
    """Two shards that are sent the same steps answer the same, draft tokens included."""
    one, other = (load_runner(demo_path(), max_draft_tokens=8) for _ in range(2))
    scheduler = speculating()
    for request in make_requests()[:6]:
        submit(scheduler, request)
    while (step := scheduler.schedule()) is not None:
        decoded = decode_to_shard(encode(step))
        assert isinstance(decoded, Step)
        result = one.execute(decoded)
        assert replace(other.execute(decoded), logprobs=b"") == replace(result, logprobs=b"")
        scheduler.commit(result)
