"""Timeouts, priorities and Retry-After on the wire."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.request import DeadlineExceeded, Overloaded
from peregrine_router.text.chat_template import Chat

HEADER = "x-request-timeout"
BODIES: dict[str, dict[str, Any]] = {
    "/generate": {"inputs": "the"},
    "/generate_stream": {"inputs": "the"},
    "/invocations": {"inputs": "the"},
    "/vertex": {"instances": [{"inputs": "the"}]},
    "/v1/completions": {"prompt": "the", "max_tokens": 5},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "the"}], "max_tokens": 5},
    "/v1/responses": {"input": "the", "max_output_tokens": 5},
}


@pytest.fixture
def chatting(engine: FakeEngine) -> Iterator[Server]:
    with serve(engine, chat=Chat(engine.tokenizer, "{{ messages[0].content }}", {})) as server:
        yield server


def seconds_left(server: Server) -> float | None:
    """Seconds until the deadline of the last request that reached the engine."""
    deadline = server.engine.requests[-1].deadline
    return None if deadline is None else deadline - time.monotonic()


@pytest.mark.parametrize("path", BODIES)
def test_every_route_takes_the_header(chatting: Server, path: str) -> None:
    """`x-request-timeout` is the deadline of what is generated; without it there is none."""
    assert chatting.client.post(path, json=BODIES[path], headers={HEADER: "30"}).status_code == 200
    assert 25 < (seconds_left(chatting) or 0) <= 30
    chatting.client.post(path, json=BODIES[path])
    assert seconds_left(chatting) is None


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf", "1e9", "1_0", "3;"])
def test_a_header_that_is_no_time_is_refused(chatting: Server, value: str) -> None:
    """It is invalid input that names the header, in the shape of the route, and nothing runs."""
    for path, body in BODIES.items():
        answer = chatting.client.post(path, json=body, headers={HEADER: value})
        assert answer.status_code == (400 if path.startswith("/v1/") else 422)
        assert HEADER in answer.text
        assert isinstance(answer.json()["error"], dict) == path.startswith("/v1/")
    assert not chatting.engine.requests


def test_the_least_timeout_holds(engine: FakeEngine) -> None:
    """The smallest of the header's, the parameter's and the operator's counts, on TGI's routes and OpenAI's."""
    cases: list[tuple[dict[str, Any], str | None, float | None, float]] = [
        ({}, None, 20.5, 20.5),
        ({}, "10", 20, 10),
        ({}, "20", 10, 10),
        ({"max_request_timeout": 5.0}, "20", 10, 5),
        ({"max_request_timeout": 5.0}, None, None, 5),
    ]
    for settings, header, parameter, expected in cases:
        headers = {} if header is None else {HEADER: header}
        with serve(engine, **settings) as server:
            for path, body in (
                ("/generate", {"inputs": "the", "parameters": {"timeout": parameter}}),
                ("/v1/completions", {"prompt": "the", "max_tokens": 5, "timeout": parameter}),
            ):
                assert server.client.post(path, json=body, headers=headers).status_code == 200
                assert expected - 5 < (seconds_left(server) or 0) <= expected


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
def test_an_answer_that_is_late_is_a_504(engine: FakeEngine, path: str) -> None:
    """In the shape of the route, counted as a timeout."""
    engine.error_at, engine.error = 2, DeadlineExceeded("allow more")
    with serve(engine) as server:
        answer = server.client.post(path, json=BODIES[path])
        failures = server.metrics()['tgi_request_failure{err="timeout"}']
    assert answer.status_code == 504
    assert failures == 1
    if path == "/generate":
        assert answer.json() == {"error": "Request timed out: allow more", "error_type": "timeout"}
    else:
        assert answer.json()["error"]["code"] == "timeout"
        assert answer.json()["error"]["type"] == "server_error"


def test_a_stream_that_is_late_ends_with_an_error(engine: FakeEngine) -> None:
    """The last event is the error; no event says that the text is complete."""
    engine.error_at, engine.error = 2, DeadlineExceeded("allow more")
    with serve(engine) as server:
        lines = server.generate(path="/generate_stream").text.splitlines()
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    assert events[0]["generated_text"] is None
    assert events[-1] == {"error": "Request timed out: allow more", "error_type": "timeout"}


def test_a_stream_whose_time_is_over_does_not_begin(engine: FakeEngine) -> None:
    """Refused by the engine, it is a 504 and not a 200 with an error in it."""
    engine.submit_error = DeadlineExceeded("allow more")
    with serve(engine) as server:
        answer = server.generate(path="/generate_stream")
    assert answer.status_code == 504
    assert answer.json()["error_type"] == "timeout"


def refused_for(engine: FakeEngine, seconds: float) -> httpx.Response:
    engine.submit_error = Overloaded(retry_after=seconds)
    with serve(engine) as server:
        return server.generate(path="/generate_stream")


def test_retry_after_is_the_engines_estimate(engine: FakeEngine) -> None:
    """In whole seconds, rounded up."""
    for seconds, header in ((1.0, "1"), (6.2, "7"), (60.0, "60")):
        answer = refused_for(engine, seconds)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, header)


@pytest.mark.slow
def test_retry_after_follows_the_rate_of_answers(engine: FakeEngine) -> None:
    """The only place is taken for 1.6 s, and nothing has ended since: to ask in less than two would be too early."""
    engine.delay = 60.0
    body = {"inputs": "the"}
    with (
        serve(engine, max_concurrent_requests=1) as server,
        server.client.stream("POST", "/generate_stream", json=body),
    ):
        assert server.generate().headers["retry-after"] == "1"
        time.sleep(1.6)
        assert server.generate().headers["retry-after"] == "2"


def test_priority(chatting: Server) -> None:
    """It reaches the engine from every family of routes; out of bounds it is a 422 that names it."""
    chatting.generate(priority=7)
    chatting.client.post("/v1/completions", json={"prompt": "the", "priority": -3, "max_tokens": 5})
    assert [request.priority for request in chatting.engine.requests] == [7, -3]
    for value in (101, -101, 1.5, "high"):
        answer = chatting.generate(priority=value)
        assert answer.status_code == 422
        assert "priority" in answer.json()["error"]


def test_the_header_is_documented(chatting: Server) -> None:
    """Every route that generates has it in /docs, and 504 among its answers; no other route has."""
    paths = chatting.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        names = [each["name"] for each in methods.get("post", {}).get("parameters", [])]
        assert (HEADER in names) == (path in BODIES or path == "/")
    assert "504" in paths["/generate"]["post"]["responses"]
