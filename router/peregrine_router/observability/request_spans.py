"""Spans of requests: one SERVER span each, and below it one for each phase, made when the request has ended."""

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

from peregrine_router.observability.observer import RequestRecord
from peregrine_router.observability.trace_attributes import (
    ERROR_TYPE,
    IS_STREAM,
    PREEMPTIONS,
    ROUTE,
    STATUS,
    Attributes,
    content_attributes,
    http_attributes,
    operation_attributes,
    parameter_attributes,
    result_attributes,
)
from peregrine_router.observability.tracing import RequestTrace, RequestTracer
from peregrine_router.scheduling.sequence import Sequence

NOT_OUR_FAULT = ("overloaded", "validation", "template", "cancelled", "dropped")
"""Labels of failures that leave the span's status unset: the client asked for too much, or left."""
MAX_EVENTS = 128
"""Events, and links, that a request keeps: the SDK's own bound for a span."""
_current: ContextVar["HttpTrace | None"] = ContextVar("trace", default=None)
_propagator = TraceContextTextMapPropagator()


@dataclass(slots=True, eq=False)
class HttpTrace(RequestTrace):
    """The SERVER span of a request, and what the steps add to its phases. Times are `time.monotonic()`."""

    span: Span
    method: str
    epoch_ns: int = field(default_factory=lambda: time.time_ns() - time.monotonic_ns())
    """Unix time of the monotonic clock's zero."""
    log_fields: Mapping[str, str] = field(init=False)
    header: str = field(init=False)
    status: int | None = None
    attributes: Attributes = field(default_factory=dict)
    """Attributes for the end of the span, given all at once: each call of the SDK takes a lock."""
    events: list[tuple[float, str, Attributes]] = field(default_factory=list)
    links: list[tuple[float, Link]] = field(default_factory=list)
    num_preemptions: int = 0
    preempted: set[Sequence] = field(default_factory=set)
    """The sequences that wait to be computed again."""

    def __post_init__(self) -> None:
        context = self.span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        self.log_fields = {"trace_id": trace_id, "span_id": span_id}
        self.header = f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"

    def started(self, status: int, is_stream: bool) -> None:
        self.status = status
        self.attributes[STATUS] = status
        if is_stream:
            self.attributes[IS_STREAM] = True

    def end(self, route: str | None, error: BaseException | None) -> None:
        if route is not None:
            self.span.update_name(f"{self.method} {route}")
            self.attributes[ROUTE] = route
        if error is not None:
            self._fail(type(error).__qualname__, is_our_fault=True)
        elif self.status is not None and self.status >= 400 and ERROR_TYPE not in self.attributes:
            self._fail(str(self.status), is_our_fault=self.status >= 500)
        self.span.set_attributes(self.attributes)
        self.span.end()

    def fail(self, label: str) -> None:
        """Records how the generation failed."""
        self._fail(label, is_our_fault=label not in NOT_OUR_FAULT)

    def add_event(self, name: str, attributes: Attributes) -> None:
        """Adds an event of this moment to the phase that goes on."""
        if len(self.events) < MAX_EVENTS:
            self.events.append((time.monotonic(), name, attributes))

    def add_link(self, link: Link) -> None:
        """Links the phase that goes on to a step."""
        if len(self.links) < MAX_EVENTS:
            self.links.append((time.monotonic(), link))

    def unix_ns(self, moment: float) -> int:
        """Unix time in nanoseconds of a moment of the monotonic clock."""
        return self.epoch_ns + int(moment * 1e9)

    def _fail(self, error_type: str, *, is_our_fault: bool) -> None:
        self.attributes[ERROR_TYPE] = error_type
        if is_our_fault:
            self.span.set_status(Status(StatusCode.ERROR))


class RequestSpans(RequestTracer):
    """Starts and fills in the spans of requests that are sampled."""

    def __init__(self, provider: TracerProvider, model_id: str, *, has_content: bool) -> None:
        """`has_content`: whether prompts and answers are recorded."""
        self.live: dict[str, HttpTrace] = {}
        """Id of each sequence in the engine -> its request's trace."""
        self._tracer: Tracer = provider.get_tracer("peregrine")
        self._model_id = model_id
        self._has_content = has_content
        self._traces: dict[RequestRecord, HttpTrace] = {}

    def start(self, scope: Mapping[str, Any]) -> HttpTrace:
        method, attributes = scope["method"], http_attributes(scope)
        context = _propagator.extract(Headers(raw=scope["headers"]), Context())
        span = self._tracer.start_span(method, context, SpanKind.SERVER, attributes)
        trace = HttpTrace(span, method)
        _current.set(trace)
        return trace

    def arrived(self, request: RequestRecord) -> None:
        trace = _current.get()
        if trace is not None and trace.span.is_recording():
            self._traces[request] = trace
            request.trace_id = trace.log_fields["trace_id"]
            trace.attributes |= operation_attributes(request, self._model_id)

    def queued(self, request: RequestRecord) -> None:
        if (trace := self._traces.get(request)) is not None:
            self.live |= {each.id: trace for each in request.requests}

    def answered(self, request: RequestRecord) -> None:
        self._end(request, None)

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        self._end(request, label)

    def _end(self, request: RequestRecord, label: str | None) -> None:
        trace = self._traces.pop(request, None)
        if trace is None:
            return
        for each in request.requests:
            # Another request may have its id by now.
            if self.live.get(each.id) is trace:
                del self.live[each.id]
        self._add_phases(request, trace, label)
        trace.attributes |= self._attributes(request)
        if trace.num_preemptions:
            trace.attributes[PREEMPTIONS] = trace.num_preemptions
        if label is not None:
            trace.fail(label)

    def _attributes(self, request: RequestRecord) -> Attributes:
        attributes = result_attributes(request)
        if request.requests:
            attributes |= parameter_attributes(request)
        return attributes | content_attributes(request) if self._has_content else attributes

    def _add_phases(self, request: RequestRecord, trace: HttpTrace, label: str | None) -> None:
        """A span for each phase that has begun; the last of them has the error."""
        end = request.ended_at
        assert end is not None
        starts = [request.arrived_at, request.queued_at, request.scheduled_at, request.first_token_at]
        phases = [
            (name, start)
            for name, start in zip(("validation", "queue", "prefill", "decode"), starts, strict=True)
            if start is not None
        ]
        context = set_span_in_context(trace.span, Context())
        for (name, start), (_, stop) in zip(phases, [*phases[1:], ("", end)], strict=True):
            self._add_phase(trace, context, name, start, stop, None if stop < end else label)

    def _add_phase(
        self, trace: HttpTrace, context: Context, name: str, start: float, stop: float, label: str | None
    ) -> None:
        links = [link for moment, link in trace.links if start <= moment < stop]
        span = self._tracer.start_span(name, context, links=links, start_time=trace.unix_ns(start))
        for moment, event, attributes in trace.events:
            if start <= moment < stop:
                span.add_event(event, attributes, trace.unix_ns(moment))
        if label is not None:
            span.set_attribute(ERROR_TYPE, label)
            if label not in NOT_OUR_FAULT:
                span.set_status(Status(StatusCode.ERROR))
        span.end(trace.unix_ns(stop))
