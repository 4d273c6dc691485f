"""The results of steps in the streams of their sequences."""

import asyncio

import pytest

from engines import read, running
from fake_shards import byte_tokenizer, expected
from peregrine_router.engine import output_processor
from peregrine_router.request import (
    FinishReason,
    GenerationFailed,
    Request,
    SamplingParams,
)


async def test_a_group_shares_the_log_probabilities_of_its_prompt() -> None:
    """The prompt is scored once, for the prompt_owner; every member's first event carries them all."""
    async with running() as rig:
        rig.shards.prompt_logprob = -0.5
        sampling = SamplingParams(prompt_logprobs=True)
        group = rig.engine.submit_group(Request(str(i), (1, 2, 3), sampling, 2) for i in range(2))
        for events in await asyncio.gather(*map(read, group)):
            assert [token.logprob for token in events[0].prefill] == [None, -0.5, -0.5]


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


async def test_a_reader_that_does_not_read_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens that wait for it are bounded; it gets them and then an error that says why. Its neighbour goes on."""
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
    """A shard that gives up on one sequence ends that stream with its message, whose cause is for the log; the other
    goes on."""
    async with running(step_seconds=0.001) as rig:
        bad, good = rig.submit([1], 100), rig.submit([2], 100)
        await bad.take()
        rig.shards.failed_slot = bad.sequence.slot
        with pytest.raises(GenerationFailed, match=r"^no way on$") as raised:
            await read(bad)
        assert str(raised.value.__cause__) == "KeyError: 3"
        rig.shards.failed_slot = None
        assert (await read(good))[-1].token.id == expected([2], 100)[-1]
        assert rig.scheduler.pool.num_used == 0


async def test_the_clock_of_a_request_starts_with_its_first_step() -> None:
    """`scheduled_at` is None in the queue and set once a step works on the request."""
    async with running() as rig:
        stream = rig.submit([1], 2)
        assert stream.scheduled_at is None
        await read(stream)
        assert stream.scheduled_at is not None
