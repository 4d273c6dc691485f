"""Steps of a real engine, on shards without a model, in traces."""

import asyncio
from collections import deque

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from engines import make_request, read, running
from peregrine_router.observability import step_spans
from peregrine_router.observability.request_spans import HttpTrace
from peregrine_router.observability.step_spans import CHUNK, PREEMPTED, RESUMED, STEP_ID, TOKENS, StepSpans
from peregrine_router.request import Request
from peregrine_router.scheduling.in_flight import StepInFlight
from spans import Spans, attributes


class Traced:
    """The traces of requests, and the observer that fills them."""

    def __init__(self, spans: Spans, *requests: Request) -> None:
        tracer = spans.provider.get_tracer("test")
        self.by_id = {each.id: HttpTrace(tracer.start_span("request"), "POST") for each in requests}
        self.spans = spans
        self.observer: StepSpans | None = None

    def watch(self, in_flight: deque[StepInFlight]) -> StepSpans:
        """Makes the observer."""
        self.observer = StepSpans(self.spans.provider, in_flight, self.by_id)
        return self.observer

    def events(self, request: Request) -> list[tuple[str, object]]:
        """(name, tokens) of each event of a request."""
        return [(name, attributes.get(TOKENS)) for _, name, attributes in self.by_id[request.id].events]


async def test_each_chunk_of_a_prompt_is_an_event() -> None:
    """A prompt of 40 tokens in steps of at most 16 is three; the second time the cache has all but its last block."""
    first, second = make_request(list(range(40)), 2), make_request(list(range(40)), 3)
    traced = Traced(Spans(), first, second)
    async with running(watch=traced.watch) as rig:
        for request in (first, second):
            await read(rig.engine.submit_group([request])[0])
    assert traced.events(first) == [(CHUNK, 16), (CHUNK, 16), (CHUNK, 8)]
    assert traced.events(second) == [(CHUNK, 4)]
    steps = [attributes[STEP_ID] for _, _, attributes in traced.by_id[first.id].events]
    assert steps == sorted(set(steps))


async def test_a_preemption_and_its_replay_are_events() -> None:
    """In a cache too small for two, the newer one gives way, is computed again, and goes on."""
    requests = [make_request([number], 14) for number in range(2)]
    traced = Traced(Spans(), *requests)
    async with running(num_blocks=6, watch=traced.watch) as rig:
        await asyncio.gather(*(read(stream) for stream in rig.engine.submit_group(requests)))
        assert rig.scheduler.num_preemptions > 0
    older, newer = (traced.by_id[each.id] for each in requests)
    assert (older.num_preemptions, newer.num_preemptions) == (0, rig.scheduler.num_preemptions)
    names = [name for name, _ in traced.events(requests[1])]
    assert names.count(PREEMPTED) == names.count(RESUMED) == newer.num_preemptions
    assert names[0] == names[names.index(RESUMED) + 1] == CHUNK
    assert names.index(PREEMPTED) < names.index(RESUMED)


async def test_an_end_is_no_preemption() -> None:
    """Slots that sequences leave at their end, or because they were cancelled, pass to others without an event."""
    requests = [make_request([number], 3) for number in range(20)]
    traced = Traced(Spans(), *requests)
    async with running(watch=traced.watch) as rig:
        streams = rig.engine.submit_group(requests)
        rig.engine.cancel(requests[3].id)
        await asyncio.gather(*(read(stream) for number, stream in enumerate(streams) if number != 3))
    assert not any(trace.num_preemptions for trace in traced.by_id.values())
    assert {name for each in requests for name, _ in traced.events(each)} == {CHUNK}


async def test_sampled_steps_have_a_span_to_which_requests_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step here; the span is of a trace of its own and says what the step computed."""
    monkeypatch.setattr(step_spans, "STEP_SPAN_SECONDS", 0.0)
    requests = [make_request([1, 2, number], 3) for number in range(2)]
    traced = Traced(Spans(), *requests)
    async with running(watch=traced.watch, overlaps=False) as rig:
        await asyncio.gather(*(read(stream) for stream in rig.engine.submit_group(requests)))
    found = {span.context.span_id: attributes(span) for span in traced.spans.all}
    assert [(each[TOKENS], each["peregrine.step.decodes"]) for each in found.values()] == [(6, 0), (2, 2), (2, 2)]
    for trace in traced.by_id.values():
        assert [link.context.span_id for _, link in trace.links] == list(found)
        assert trace.span.get_span_context().trace_id not in {span.context.trace_id for span in traced.spans.all}


async def test_one_step_a_second_has_a_span() -> None:
    """However fast the steps are."""
    request = make_request([1], 50)
    traced = Traced(Spans(), request)
    async with running(watch=traced.watch) as rig:
        await read(rig.engine.submit_group([request])[0])
    assert len(traced.spans.all) == len(traced.by_id[request.id].links) == 1


async def test_nothing_links_to_a_step_that_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector would never see it."""
    monkeypatch.setattr(step_spans, "STEP_SPAN_SECONDS", 0.0)
    request = make_request([1], 5)
    traced = Traced(Spans(ALWAYS_OFF), request)
    async with running(watch=traced.watch) as rig:
        await read(rig.engine.submit_group([request])[0])
    assert not traced.by_id[request.id].links
