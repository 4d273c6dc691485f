"""Sequences collected and merged."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from peregrine_router.http.sequence_output import EventBatch, collect, merge
from peregrine_router.request import Finished, FinishReason, Request, SamplingParams, Token, TokenEvent

REQUEST = Request("a", (1, 2), SamplingParams(), 3)
PROMPT = (Token(1, "a"), Token(2, "b", -0.5))


def event(index: int, logprob: float, **fields: object) -> TokenEvent:
    return TokenEvent(index, Token(index, str(index), logprob), str(index), **fields)  # type: ignore[arg-type]


def last(index: int) -> TokenEvent:
    return event(index, -3.0, finished=Finished(FinishReason.LENGTH, "12", index))


async def batches(
    number: int, *events: TokenEvent, delay: float = 0.0, error: Exception | None = None
) -> AsyncIterator[EventBatch]:
    for each in events:
        await asyncio.sleep(delay)
        yield number, [each]
    if error is not None:
        raise error


async def test_a_collected_sequence() -> None:
    """All tokens, the prompt's from the first event, and the end from the last."""
    output = await collect(REQUEST, batches(0, event(1, -1.0, prefill=PROMPT), last(2)))
    assert [token.id for token in output.tokens] == [1, 2]
    assert output.prefill == PROMPT
    assert output.end.generated_text == "12"
    assert output.mean_logprob == -2.0


async def test_merged_sequences_come_in_the_order_of_time() -> None:
    """A slow sequence holds no other up, and the stream ends when all have."""
    sources = [batches(0, event(1, -1.0), last(2), delay=0.1), batches(1, event(1, -1.0), last(2))]
    assert [number async for number, _ in merge(sources)] == [1, 1, 0, 0]


async def test_an_error_of_one_sequence_ends_all() -> None:
    """The error is raised at once, and the other sequences' readers are cancelled."""
    endless = batches(0, *(event(index, -1.0) for index in range(1, 9)), delay=3600)
    failing = batches(1, event(1, -1.0), error=ZeroDivisionError())
    merged = merge([endless, failing])
    assert (await anext(merged))[0] == 1
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(anext(merged), 5)
