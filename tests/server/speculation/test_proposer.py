"""Guessed tokens on a shard: the same answers in fewer steps, and no guesses where they do not pay."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import (
    PROBE_STEPS,
    Grammar,
    Step,
    StepResult,
    decode_to_shard,
    encode,
    unpack,
    unpack_floats,
)
from peregrine_server.speculation.proposer import PATIENCE, Speculation, accepted_rows
from peregrine_server.speculation.token_mirror import HostTokenMirror
from runners import BLOCK_SIZE, free_guesses, generated, load_runner, make_scheduler, run, run_step

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
    return load_runner(demo_path(), speculate=8, eos_token_ids=(0,))


def speculating(num_blocks: int = 192, rows: int = 64, most: int = 8) -> Scheduler:
    return make_scheduler(num_blocks, max_step_tokens=32, eos=EOS, speculation=free_guesses(most, rows))


def make_requests() -> list[Request]:
    return [
        Request(f"{i}-{j}", prompt, SamplingParams(seed=i, **kind), 30 + 5 * j)
        for i, kind in enumerate(KINDS)
        for j, prompt in enumerate((REPETITIVE, STORY))
    ]


@dataclass
class Answers:
    """What the shard said of each slot: tokens, log-probabilities, likeliest tokens."""

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
def test_tokens_are_those_without_guesses(num_blocks: int, every: int, runner: Runner) -> None:
    """Greedy, sampled, penalised, constrained and scored sequences that join, leave and are preempted."""
    plain = run(runner, make_scheduler(num_blocks, eos=EOS), make_requests())
    scheduler = speculating(num_blocks)
    guessed = run(runner, scheduler, make_requests(), every=every)
    assert [generated(sequence) for sequence in guessed] == [generated(sequence) for sequence in plain]
    assert scheduler.speculation.num_accepted > 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_alone(kind: dict[str, Any], runner: Runner) -> None:
    """Its tokens are those without guesses, whatever it asked for."""
    request = Request("a", REPETITIVE, SamplingParams(seed=3, **kind), 60)
    (plain,) = run(runner, make_scheduler(eos=EOS), [request])
    (guessed,) = run(runner, speculating(), [request])
    assert generated(guessed) == generated(plain)


def steps_of(runner: Runner, scheduler: Scheduler, requests: list[Request]) -> tuple[list[StepResult], list[Sequence]]:
    results, sequences = [], [scheduler.submit(request) for request in requests]
    while (result := run_step(runner, scheduler)) is not None:
        results.append(result)
    return results, sequences


def test_log_probabilities_are_each_tokens_own(runner: Runner) -> None:
    """Of tokens that came together, each has its own log-probability and likeliest tokens."""
    requests = [Request(name, REPETITIVE, SamplingParams(logprobs=True, top_n_tokens=2), 40) for name in "ab"]
    answers = []
    for scheduler in (make_scheduler(eos=EOS), speculating()):
        answers.append(Answers({}))
        for result in steps_of(runner, scheduler, requests)[0]:
            answers[-1].take(result)
    plain, guessed = answers
    for slot, tokens in plain.of.items():
        for (token_id, logprob, ids, values), other in zip(tokens, guessed.of[slot], strict=False):
            assert other == (token_id, pytest.approx(logprob, abs=1e-4), ids, pytest.approx(values, abs=1e-4))


def test_repetitions_take_fewer_steps(runner: Runner) -> None:
    """A text that goes round in circles comes several tokens a step."""
    results, (sequence,) = steps_of(runner, speculating(), [Request("a", REPETITIVE, SamplingParams(), 60)])
    assert sequence.num_generated == 60
    assert len(results) < 30


def test_a_full_batch_guesses_nothing(runner: Runner) -> None:
    """Where two rows a sequence are more than are nearly free, none is added."""
    requests = [Request(str(i), REPETITIVE, SamplingParams(), 20) for i in range(5)]
    results, _ = steps_of(runner, speculating(rows=9), requests)
    full = [result for result in results if len(set(unpack(result.slots).tolist())) == 5]
    assert full
    assert not any(result.num_draft_tokens for result in full)


def test_an_answer_may_end_at_the_last_place(tmp_path: Path) -> None:
    """A sequence of full length, whose blocks it fills to the last token, guesses no further."""
    runner = load_runner(
        demo_path(), speculate=8, max_total_tokens=5 * BLOCK_SIZE, max_batch_total_tokens=5 * BLOCK_SIZE
    )
    request = Request("a", REPETITIVE[:16], SamplingParams(), 5 * BLOCK_SIZE - 16)
    (plain,) = run(runner, make_scheduler(num_blocks=5, eos=EOS), [request])
    (guessed,) = run(runner, speculating(num_blocks=5), [request])
    assert generated(guessed) == generated(plain)


def test_right_rows_end_at_the_first_wrong_guess() -> None:
    """Of each sequence the tokens up to it, that one included."""
    #         two right of two | first wrong | no guess | second wrong
    guesses = [5, 6, -1, 7, 8, -1, -1, 4, 3, -1]
    tokens = [5, 6, 9, 1, 8, 2, 3, 4, 0, 0]
    assert accepted_rows(np.array(guesses), np.array(tokens)).tolist() == [0, 1, 2, 3, 6, 7, 8]


CHEAP, DEAR = (0.0, 0.05), (0.8, 0.1)


class Alone:
    """One sequence that goes round in circles of three, in the only slot."""

    def __init__(self) -> None:
        self.speculation = Speculation(HostTokenMirror(torch.zeros(1, 64, dtype=torch.int64), is_copy=True))
        self.begin([1, 2, 3] * 6)

    def begin(self, tokens: list[int]) -> None:
        self.length = len(tokens)
        self.speculation.add(0, np.array(tokens))

    def step(self, step_id: int, cost: tuple[float, float] = CHEAP, *, is_right: bool = False) -> int:
        """How many tokens it guesses in a step: all right or all wrong."""
        slot = np.zeros(1, dtype=np.int64)
        guess = next(iter(self.speculation.guess(step_id, [0], [self.length], [8], cost)), slot[:0])
        if len(guess):
            tokens = [*guess.tolist(), 7] if is_right else [0] * (len(guess) + 1)
            self.speculation.verify(slot.repeat(len(tokens)), np.array([*guess.tolist(), -1]), np.array(tokens))
        return len(guess)


def test_guesses_that_are_wrong_become_rare() -> None:
    """After a few, one token is guessed in every 16th step, then in every 32nd, and so on up to the 256th."""
    alone = Alone()
    tried = {step_id: count for step_id in range(1, 1025) if (count := alone.step(step_id))}
    first = max(step_id for step_id in tried if step_id < PROBE_STEPS)
    assert list(tried)[:first] == [*range(1, first + 1)]
    assert sorted(tried.values(), reverse=True) == list(tried.values())
    rest = [step_id for step_id in tried if step_id > first]
    assert rest == [16, 32, 64, 128, 256, 512, 768, 1024]
    assert {tried[step_id] for step_id in rest} == {1}


def test_right_guesses_bring_a_sequence_back() -> None:
    """One that rests guesses in every step again as soon as that is worth it, and then as many as it may."""
    alone = Alone()
    for step_id in range(1, 128):
        alone.step(step_id)
    counts = [alone.step(step_id, is_right=True) for step_id in range(128, 134)]
    assert counts[0] == 1
    assert 0 < counts[1] <= counts[2] <= counts[3]
    assert counts[-1] == 8


def test_dear_guesses_need_better_chances() -> None:
    """What is worth a little time is not worth more."""
    assert Alone().step(1, (0.0, 0.0)) == 8
    assert 0 < Alone().step(1, CHEAP) < 8
    assert Alone().step(1, DEAR) == 1  # to find out


def test_where_nothing_is_found_a_sequence_looks_seldom() -> None:
    """After a few steps: on CUDA each of them is waited for."""
    alone = Alone()
    alone.begin([*range(1, 19)])
    looked = []
    for step_id in range(1, 200):
        looked += [step_id] * alone.speculation.guesses_in(step_id, [0])
        assert alone.step(step_id) == 0
    assert looked == [*range(1, PATIENCE + 1), 16, 32, 64, 128, 192]


def test_a_sequence_begins_with_what_others_had() -> None:
    """Where guesses were wrong time and again, the next sequence does not begin with any."""
    alone = Alone()
    for _ in range(60):
        alone.begin([1, 2, 3] * 6)
        alone.step(1)
    alone.begin([1, 2, 3] * 6)
    assert alone.step(1) == 0


def test_ranks_guess_alike() -> None:
    """Two shards that are sent the same steps answer the same, guesses and all."""
    one, other = (load_runner(demo_path(), speculate=8) for _ in range(2))
    scheduler = speculating()
    for request in make_requests()[:6]:
        scheduler.submit(request)
    while (step := scheduler.schedule()) is not None:
        decoded = decode_to_shard(encode(step))
        assert isinstance(decoded, Step)
        result = one.execute(decoded)
        assert replace(other.execute(decoded), logprobs=b"") == replace(result, logprobs=b"")
        scheduler.commit(result)
