"""Middleware of traces: a SERVER span for each request, in the client's trace if `traceparent` names one."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peregrine_router.observability.log import log_context
from peregrine_router.observability.tracing import RequestTracer

TRACE_RESPONSE = "traceresponse"
"""Header of the answer that names its trace and span, in the form of `traceparent`."""
TRACED_METHODS = ("POST", "DELETE")
"""Reads have no span: most are health checks and scrapes."""
EVENT_STREAM = "text/event-stream"


class TraceContext:
    """Starts the span, ends it, and names it in the answer. Plain ASGI, inside `RequestIds`: streams pass it by."""

    def __init__(self, app: ASGIApp, tracer: RequestTracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or scope["method"] not in TRACED_METHODS:
            return await self._app(scope, receive, send)
        trace, error = self._tracer.start(scope), None
        log_context.set({**log_context.get(), **trace.log_fields})

        async def send_with_trace(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith(EVENT_STREAM)
                trace.started(message["status"], is_stream)
                MutableHeaders(scope=message)[TRACE_RESPONSE] = trace.header
            await send(message)

        try:
            await self._app(scope, receive, send_with_trace)
        except BaseException as raised:
            error = raised
            raise
        finally:
            trace.end(getattr(scope.get("route"), "path", None), error)
