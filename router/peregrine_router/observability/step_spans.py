"""Steps in traces: chunks of prompts and preemptions as events of requests, and a span for a step now and then."""

import time
from collections import deque
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import Link, TracerProvider

from peregrine_router.engine.step_times import num_tokens
from peregrine_router.interfaces import StepObserver
from peregrine_router.observability.request_spans import HttpTrace
from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import Step, StepResult, unpack

STEP_SPAN_SECONDS = 1.0
"""Least time between two steps that have a span: links to it cost a microsecond for each sequence in the step."""
CHUNK, PREEMPTED, RESUMED = "peregrine.prefill_chunk", "peregrine.preempted", "peregrine.resumed"
STEP_ID, STEP_SECONDS, TOKENS = "peregrine.step.id", "peregrine.step.seconds", "peregrine.tokens"


class StepSpans(StepObserver):
    """Adds events to the traces of the requests in a step. A step of decodes alone costs two comparisons."""

    def __init__(self, provider: TracerProvider, in_flight: deque[StepInFlight], live: Mapping[str, HttpTrace]) -> None:
        """`in_flight`: `Scheduler.in_flight`. `live`: id of each sequence in the engine -> its request's trace."""
        self._tracer = provider.get_tracer("peregrine")
        self._in_flight = in_flight
        self._live = live
        self._running: dict[int, tuple[Sequence, HttpTrace]] = {}
        """By slot, the traced sequences."""
        self._next_span_at = 0.0

    def sent(self, step: Step) -> None:
        if step.freed:
            self._free(step)
        if step.new or step.forks:
            self._admit(step)

    def answered(self, step: Step, result: StepResult, seconds: float | None) -> None:
        if not self._live:
            return
        if len(step.slots) > 4 * step.num_decodes:
            self._add_chunks(step, seconds)
        if (now := time.monotonic()) >= self._next_span_at:
            self._next_span_at = now + STEP_SPAN_SECONDS
            self._add_span(step, seconds)

    def _free(self, step: Step) -> None:
        """A sequence that leaves its slot before it has ended is preempted, unless it gets another at once: then it
        has found the rest of its prompt in the cache."""
        sequences = self._in_flight[-1].sequences
        admitted = {id(sequences[new.slot]) for new in step.new if new.slot in sequences}
        for slot in unpack(step.freed).tolist():
            sequence, trace = self._running.pop(slot, (None, None))
            if sequence is None or trace is None or sequence.is_done or id(sequence) in admitted:
                continue
            trace.num_preemptions += 1
            trace.add_event(PREEMPTED, {"gen_ai.usage.output_tokens": sequence.num_generated})
            trace.preempted.add(sequence)

    def _admit(self, step: Step) -> None:
        sequences = self._in_flight[-1].sequences
        cached = {new.slot: new.num_cached for new in step.new}
        for slot in [*cached, *(fork.slot for fork in step.forks)]:
            sequence = sequences[slot]
            self._running.pop(slot, None)
            if (trace := self._live.get(sequence.request.id)) is None:
                continue
            self._running[slot] = sequence, trace
            if sequence in trace.preempted:
                trace.preempted.discard(sequence)
                trace.add_event(RESUMED, {STEP_ID: step.id, TOKENS: len(sequence.token_ids) - cached.get(slot, 0)})

    def _add_chunks(self, step: Step, seconds: float | None) -> None:
        sequences = self._in_flight[0].sequences
        slots = unpack(step.slots)[step.num_decodes :].tolist()
        for slot, count in zip(slots, unpack(step.num_tokens).tolist(), strict=True):
            # A sequence that was preempted or has ended is not in the step any more.
            if slot in sequences and (trace := self._live.get(sequences[slot].request.id)) is not None:
                trace.add_event(CHUNK, {STEP_ID: step.id, TOKENS: count, STEP_SECONDS: seconds or 0.0})

    def _add_span(self, step: Step, seconds: float | None) -> None:
        """A span of a trace of its own, because a step works for many requests; theirs link to it."""
        oldest, now_ns = self._in_flight[0], time.time_ns()
        start = seconds if seconds is not None else time.monotonic() - oldest.sent_at
        attributes = {
            STEP_ID: step.id,
            TOKENS: num_tokens(step),
            "peregrine.step.sequences": len(step.slots) // 4,
            "peregrine.step.decodes": step.num_decodes,
        }
        span = self._tracer.start_span("step", Context(), attributes=attributes, start_time=now_ns - int(start * 1e9))
        span.end(now_ns)
        if not span.get_span_context().trace_flags.sampled:
            return
        link = Link(span.get_span_context())
        for sequence in oldest.sequences.values():
            if (trace := self._live.get(sequence.request.id)) is not None:
                trace.add_link(link)
