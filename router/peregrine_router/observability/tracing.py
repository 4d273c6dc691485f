"""The door to OpenTelemetry: whether traces are exported, and what the rest of the router knows of them.

The SDK is imported by `open_tracing` alone: a server without traces never loads it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peregrine_router.interfaces import StepObserver
from peregrine_router.observability.observer import RequestObserver
from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_router.settings import Settings

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OFF = (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"))
"""Variables, and their values, that forbid traces whatever the endpoint."""
GRPC, HTTP = "grpc", "http/protobuf"
HTTP_PORT = ":4318"
"""The port that is registered for OTLP over HTTP; 4317 is gRPC's."""


class RequestTrace:
    """The SERVER span of one request, as the HTTP side sees it."""

    log_fields: Mapping[str, str]
    """`trace_id` and `span_id` in hex, for the request's log lines."""
    header: str
    """The value of the answer's `traceresponse`."""

    def started(self, status: int, is_stream: bool) -> None:
        """Called with the head of the answer."""
        raise NotImplementedError

    def end(self, route: str | None, error: BaseException | None) -> None:
        """Ends the span. `route`: the path's template, None if no route has it. `error`: what no handler answered."""
        raise NotImplementedError


class RequestTracer(RequestObserver):
    """Starts the SERVER span of each request, and fills it in as the observer of what becomes of it."""

    def start(self, scope: Mapping[str, Any]) -> RequestTrace:
        """The span of the request with that ASGI scope; in the client's trace, if its headers name one."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Tracing:
    """The parts of a server with traces that one without does not have."""

    tracer: RequestTracer
    watch_steps: Callable[[deque[StepInFlight]], StepObserver]
    """Makes the observer of the steps in `Scheduler.in_flight`."""
    close: Callable[[], None]
    """Exports what is left, within a second."""


@dataclass(frozen=True, slots=True)
class OtlpOptions:
    """Where spans are sent."""

    protocol: str
    """`GRPC` or `HTTP`."""
    endpoint: str | None
    """That of --otlp-endpoint; None: the SDK reads its own variables."""


def otlp_options(settings: Settings, environ: Mapping[str, str]) -> OtlpOptions | None:
    """Where to send spans; None if nothing asks for traces, or a variable forbids them. Raises ValueError."""
    endpoint = settings.otlp_endpoint or next(filter(None, map(environ.get, ENDPOINTS)), None)
    if endpoint is None or any(environ.get(name, "").lower() == value for name, value in OFF):
        return None
    given = next(filter(None, map(environ.get, PROTOCOLS)), None)
    protocol = given or (HTTP if HTTP_PORT in endpoint else GRPC)
    if protocol not in (GRPC, HTTP):
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol} is not known, choose {GRPC} or {HTTP}")
    return OtlpOptions(protocol, settings.otlp_endpoint)


def open_tracing(settings: Settings, environ: Mapping[str, str], model_id: str) -> Tracing | None:
    """Starts to export traces if the operator asks for them."""
    options = otlp_options(settings, environ)
    if options is None:
        return None
    from peregrine_router.observability.otlp import close, tracer_provider
    from peregrine_router.observability.request_spans import RequestSpans
    from peregrine_router.observability.step_spans import StepSpans

    provider = tracer_provider(options, settings.otlp_service_name)
    spans = RequestSpans(provider, model_id, has_content=settings.otlp_content)
    return Tracing(spans, lambda in_flight: StepSpans(provider, in_flight, spans.live), lambda: close(provider))
