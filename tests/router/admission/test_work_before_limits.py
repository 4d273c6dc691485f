"""Prompts that cannot fit are refused before they are worked on, and long ones keep no short one waiting."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from tokenizers import AddedToken, normalizers

from fakes import INFO, make_tokenizer, train_backend
from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.prompts import TokenPrompt
from peregrine_router.admission.validator import LONG, PromptJob, Validator, tgi_prompt_job
from peregrine_router.engine.deadlines import Deadlines
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.request import ContextLengthExceeded, InvalidRequest, Request, SamplingParams
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer


class IdleTokenizer(Tokenizer):
    """A tokenizer that must not be used."""

    def encode(self, text: str, **options: bool) -> list[int]:
        raise AssertionError("the text is tokenized")

    def decode(self, ids: list[int], **options: bool) -> str:
        raise AssertionError("the ids are decoded")


async def test_a_text_that_cannot_fit_is_not_tokenized() -> None:
    """Its length in bytes is enough; with `truncate` it may fit."""
    validator = Validator(IdleTokenizer(train_backend(), frozenset({0})), Settings(), INFO)
    with pytest.raises(InvalidRequest, match=r"`inputs` tokens .* Given: at least [0-9]+ `inputs` tokens"):
        await validator.validate(tgi_prompt_job("the " * 100_000, None))
    with pytest.raises(AssertionError, match="tokenized"):
        await validator.validate(tgi_prompt_job("the " * 100_000, GenerateParameters(truncate=5)))
    validator.close()


async def test_ids_that_cannot_fit_are_not_decoded() -> None:
    """The number of ids is the prompt's length."""
    validator = Validator(IdleTokenizer(train_backend(), frozenset({0})), Settings(), INFO)
    job = PromptJob(TokenPrompt((1,) * 100_000), GenerateParameters(), is_tgi=False, name="prompt")
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 80 tokens"):
        await validator.validate(job)
    validator.close()


@pytest.mark.parametrize(
    "text", ["", "the", "the quick brown fox", "é😀" * 9, "<|endoftext|>" * 9, " " * 999, "a\nb" * 99]
)
def test_the_bound_is_below_every_count(text: str) -> None:
    """No text has fewer tokens than the bound says."""
    tokenizer = make_tokenizer()
    for has_special in (False, True):
        assert tokenizer.min_tokens(text) <= len(tokenizer.encode(text, has_special_tokens=has_special))


def test_tokenizers_that_drop_text_have_no_bound() -> None:
    """A normalizer may shorten a text, and a token may take all white space beside it."""
    stripping, swallowing = train_backend(), train_backend()
    stripping.normalizer = normalizers.Strip()
    swallowing.add_special_tokens([AddedToken("<pad>", special=True, lstrip=True)])
    for backend in (stripping, swallowing):
        assert Tokenizer(backend, frozenset({0})).min_tokens(" " * 999) == 0


async def test_short_prompts_do_not_wait_for_long_ones() -> None:
    """However many long texts one client has posted, a thread is left for the next short one."""
    validator, is_over = Validator(make_tokenizer(), Settings(), INFO), threading.Event()
    long = [asyncio.create_task(validator.on_thread(is_over.wait, LONG + 1)) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(validator.encode("the"), 5)
    is_over.set()
    assert all(await asyncio.gather(*long))
    validator.close()


async def test_a_fault_of_our_own_is_not_the_clients() -> None:
    """Text that the tokenizer cannot encode is the client's error; anything else is a 500."""
    validator = Validator(make_tokenizer(), Settings(), INFO)

    def fail(error: Exception) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    with pytest.raises(InvalidRequest, match="the model's tokenizer cannot work on it"):
        await validator.on_thread(fail(Exception("no unk")))
    with pytest.raises(KeyError):
        await validator.on_thread(fail(KeyError("a bug")))
    validator.close()


def test_deadlines_that_are_far_cost_no_search() -> None:
    """The cache is searched for a waiting prompt only if its time would be too short without it."""
    steps, ended = StepTimes(), list[str]()
    deadlines = Deadlines(lambda id, error: ended.append(id), steps)
    request = Request("a", (1,) * 100, SamplingParams(), 1, deadline=time.monotonic() + 60)

    def search() -> int:
        raise AssertionError("the cache is searched")

    deadlines.drop_unmeetable([(request, 100, search)], 10)
    deadlines.drop_unmeetable([(replace(request, deadline=time.monotonic() - 1), 100, lambda: 100)], 10)
    assert ended == ["a"]
