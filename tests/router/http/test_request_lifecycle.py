"""The life cycle of a request: permits, cancellation, and its one end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fakes import INFO, FakeEngine
from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.limits import ConcurrencyLimit
from peregrine_router.admission.validator import Validator, tgi_prompt_job
from peregrine_router.http.exceptions import IncompleteGeneration
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.observability.observer import RequestObserver, RequestObservers, RequestRecord
from peregrine_router.request import Cancelled, Overloaded, Tenant
from peregrine_router.settings import Settings

JOB = tgi_prompt_job("the", GenerateParameters(max_new_tokens=2))
PAIR = tgi_prompt_job("the", GenerateParameters(max_new_tokens=2, best_of=2, do_sample=True))


class Ends(RequestObserver):
    """Writes down how requests ended."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def answered(self, request: RequestRecord) -> None:
        self.labels.append("answered")

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        self.labels.append(label)


class Lives:
    """Makes life cycles that share one limit of two permits."""

    def __init__(self, engine: FakeEngine, validator: Validator) -> None:
        self.limit = ConcurrencyLimit(2)
        self.ends = Ends()
        self._engine = engine
        self._validator = validator

    def new(self) -> RequestLifecycle:
        observers = RequestObservers([self.ends])
        return RequestLifecycle(
            self._engine, self._validator, self.limit, observers, "id", Tenant(), None, lambda lifecycle: None
        )

    @property
    def num_free(self) -> int:
        """Permits that another request could take."""
        for count in (2, 1):
            try:
                self.limit.acquire(count, "")
            except Overloaded:
                continue
            self.limit.release(count, "")
            return count
        return 0


@asynccontextmanager
async def living(engine: FakeEngine) -> AsyncIterator[Lives]:
    validator = Validator(engine.tokenizer, Settings(), INFO)
    yield Lives(engine, validator)
    validator.close()


async def test_permits_are_free_before_the_last_token_is_seen(engine: FakeEngine) -> None:
    """A client that sends its next request at the last token is not refused for this one's permits."""
    async with living(engine) as lives, lives.new() as lifecycle:
        await lifecycle.start([PAIR])
        assert lives.num_free == 0
        free = [lives.num_free async for _ in lifecycle.events()]
    assert free[-1] == 2
    assert lives.ends.labels == ["answered"]


async def test_collected_sequences_are_grouped_by_prompt(engine: FakeEngine) -> None:
    """Every sequence of every prompt in full, in the order of the prompts."""
    async with living(engine) as lives, lives.new() as lifecycle:
        await lifecycle.start([JOB, JOB])
        outputs = await lifecycle.collect()
    assert [[len(output.tokens) for output in outputs_of_prompt] for outputs_of_prompt in outputs] == [[2], [2]]
    assert [each.request.id for (each,) in outputs] == [request.id for request in lifecycle.requests]


async def test_what_is_cancelled_before_it_is_queued_never_is(engine: FakeEngine) -> None:
    """A cancellation during validation is raised when that is done, and gives the permits back."""
    async with living(engine) as lives:
        lifecycle = lives.new()
        starting = asyncio.create_task(lifecycle.start([JOB]))
        await asyncio.sleep(0)
        lifecycle.cancel()
        with pytest.raises(Cancelled):
            await starting
        await lifecycle.close(Cancelled())
        assert lives.num_free == 2
    assert engine.requests == []
    assert lives.ends.labels == ["cancelled"]


async def test_the_first_end_counts(engine: FakeEngine) -> None:
    """However often a life cycle is closed, its request ended once, and its permits came back once."""
    async with living(engine) as lives:
        lifecycle = lives.new()
        await lifecycle.start([JOB])
        await lifecycle.close()
        await lifecycle.close(ZeroDivisionError())
        assert lives.num_free == 2
    assert lives.ends.labels == ["dropped"]
    assert engine.cancelled == [lifecycle.requests[0].id]


async def test_a_stream_without_its_last_event_is_an_error(engine: FakeEngine) -> None:
    """A sequence that the engine ends early is told apart from one that is complete."""
    engine.is_cut = True
    async with living(engine) as lives:
        lifecycle = lives.new()
        await lifecycle.start([tgi_prompt_job("the", GenerateParameters(max_new_tokens=9))])
        with pytest.raises(IncompleteGeneration) as raised:
            await lifecycle.collect()
        await lifecycle.close(raised.value)
    assert lives.ends.labels == ["incomplete"]
