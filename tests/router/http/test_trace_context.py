"""The middleware of traces: what it adds to answers and to the log."""

import json
import logging

import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.http.trace_context import TRACE_RESPONSE
from peregrine_router.observability.log import JsonFormatter
from spans import Spans


def test_the_line_of_a_request_has_its_trace(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    """As the answer's header and the span; streams too."""
    caplog.set_level(logging.INFO)
    lines: list[str] = []
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    logging.getLogger("peregrine_router").addHandler(handler)
    try:
        with serve(engine, tracer=Spans().tracer) as server:
            answers = [server.generate(path=path) for path in ("/generate", "/generate_stream")]
    finally:
        logging.getLogger("peregrine_router").removeHandler(handler)
    found = [json.loads(line) for line in lines]
    assert [(each["trace_id"], each["span_id"]) for each in found] == [
        tuple(answer.headers[TRACE_RESPONSE].split("-")[1:3]) for answer in answers
    ]


def test_requests_of_one_connection_have_spans_of_their_own(engine: FakeEngine) -> None:
    """Nothing of a request is left for the next."""
    spans = Spans()
    with serve(engine, tracer=spans.tracer) as server:
        headers = [server.generate().headers[TRACE_RESPONSE] for _ in range(3)]
    assert len(set(headers)) == 3
    assert [name for name in spans.names if name.startswith("POST")] == ["POST /generate"] * 3


def test_pages_may_read_the_header(engine: FakeEngine) -> None:
    """CORS exposes it."""
    with serve(engine, tracer=Spans().tracer) as server:
        answer = server.client.post("/generate", json={"inputs": "the"}, headers={"origin": "http://a"})
    assert TRACE_RESPONSE in answer.headers["access-control-expose-headers"]


def test_without_traces_there_is_no_header(server: Server) -> None:
    """And no middleware."""
    assert TRACE_RESPONSE not in server.generate().headers
