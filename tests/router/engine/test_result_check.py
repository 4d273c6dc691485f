"""Wrong answers of the shards end the engine, with an error for every request, at once."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from engines import Rig, read
from peregrine_router.engine.prompt_scores import PromptScores
from peregrine_router.engine.result_check import WrongResult, check_result
from peregrine_router.request import EngineDead
from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_server.protocol import PromptLogprobs, SequenceFailed, Step, StepResult, TopTokens, pack

TOO_MANY = b"\0\0\0\0" * 9


def slots(*changed: int) -> Callable[[StepResult], StepResult]:
    """A result whose slots are these."""
    return lambda result: replace(result, slots=pack(changed))


def top(*changed: TopTokens) -> Callable[[StepResult], StepResult]:
    """A result with these likeliest tokens."""
    return lambda result: replace(result, top_tokens=list(changed))


def scored(*changed: PromptLogprobs) -> Callable[[StepResult], StepResult]:
    """A result with these scores of prompts."""
    return lambda result: replace(result, prompt_logprobs=list(changed))


WRONG: dict[str, Callable[[StepResult], StepResult]] = {
    "an unknown slot": slots(77),
    "a negative slot": slots(-1),
    "no slot": lambda result: replace(result, slots=b"", token_ids=b"", logprobs=b""),
    "a slot twice": lambda result: replace(
        result, slots=result.slots * 2, token_ids=result.token_ids * 2, logprobs=result.logprobs * 2
    ),
    "more tokens than slots": lambda result: replace(result, token_ids=result.token_ids + b"\0\0\0\0"),
    "half a token": lambda result: replace(result, token_ids=result.token_ids[:2], slots=result.slots[:2]),
    "too many log-probabilities": lambda result: replace(result, logprobs=TOO_MANY),
    "half a log-probability": lambda result: replace(result, logprobs=b"\0\0"),
    "a negative token": lambda result: replace(result, token_ids=pack([-1])),
    "a token outside of the vocabulary": lambda result: replace(result, token_ids=pack([300])),
    "draft tokens that were not allowed": lambda result: replace(result, num_draft_tokens=1),
    "fewer draft tokens than none": lambda result: replace(result, num_draft_tokens=-1),
    "likeliest tokens of no row": top(TopTokens(1, pack([1]), b"\0\0\0\0")),
    "likeliest tokens outside of the vocabulary": top(TopTokens(0, pack([256]), b"\0\0\0\0")),
    "likeliest tokens without log-probabilities": top(TopTokens(0, pack([1]), b"")),
    "half a likeliest token": top(TopTokens(0, b"\0\0", b"\0\0")),
    "half a score of a prompt": scored(PromptLogprobs(0, 1, b"\0\0")),
    "likeliest tokens of no prompt": scored(PromptLogprobs(0, 1, b"", pack([1]), b"\0\0\0\0")),
    "likeliest tokens of a part of a prompt": scored(PromptLogprobs(0, 1, bytes(8), pack([1]), bytes(4))),
    "unknown likeliest tokens of a prompt": scored(PromptLogprobs(0, 1, bytes(4), pack([-1]), bytes(4))),
    "another step": lambda result: replace(result, id=result.id + 1),
    "the step before": lambda result: replace(result, id=result.id - 1),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_a_wrong_answer_ends_every_request(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request hangs, and the engine says what was wrong."""
    rig = Rig(64, 0.0, vocab_size=256)
    execute = rig.model.execute

    def execute_wrongly(step: Step) -> StepResult:
        result = execute(step)
        return WRONG[kind](result) if step.id == 3 else result

    monkeypatch.setattr(rig.model, "execute", execute_wrongly)
    stream = rig.submit([1], 200)
    async with asyncio.timeout(10):
        with pytest.raises((WrongResult, ValueError), match=r"^the shards answered "):
            await rig.engine.run()
        with pytest.raises(EngineDead):
            await read(stream)
    assert not rig.engine.is_healthy


async def test_the_token_of_a_failed_sequence_may_be_any() -> None:
    """It is no answer: the sequence fails, and the engine goes on."""
    step = StepInFlight(Step(1), {}, frozenset({0, 1}))
    result = StepResult(1, pack([0, 1]), pack([5, 300]), b"")
    with pytest.raises(WrongResult):
        check_result(step, result, 256)
    check_result(step, replace(result, failed=[SequenceFailed(1, "no numbers")]), 256)


async def test_scores_outside_of_the_prompt_end_every_request() -> None:
    """They would be another position's."""
    for start, count in ((0, 1), (3, 2), (-2, 1)):
        with pytest.raises(ValueError, match=r"^the shards scored tokens"):
            PromptScores(4).add(PromptLogprobs(0, start, b"\0\0\0\0" * count))
