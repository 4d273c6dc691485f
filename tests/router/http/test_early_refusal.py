"""Refusals by the head of a request alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from fakes import FakeEngine, Server, serve, wait_until
from raw_http import BODY, HEAD, Connection, error_type, request, statuses, talk

ONE_CHUNK = b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"


@contextmanager
def full(engine: FakeEngine, **settings: Any) -> Iterator[tuple[Server, int]]:
    """A server whose only place is taken until the block ends, and its port."""
    engine.delay, engine.says = 0.3, " falcons dive" * 20
    with serve(engine, max_concurrent_requests=1, **settings) as server:
        headers = {"authorization": "Bearer first", "x-request-id": "running"}
        running = threading.Thread(
            target=lambda: server.client.post("/generate", json={"inputs": "the"}, headers=headers)
        )
        running.start()
        wait_until(lambda: engine.running)
        try:
            yield server, int(server.url.rpartition(":")[2])
        finally:
            server.client.post("/cancel/running", headers=headers)
            running.join()


@pytest.mark.parametrize("framing", [b"Content-Length: 2000000\r\n\r\n", ONE_CHUNK], ids=["length", "chunked"])
def test_a_full_server_refuses_before_the_body_comes(engine: FakeEngine, framing: bytes) -> None:
    """The 429 is there although the body is not, says when to come back, and ends the connection."""
    with full(engine) as (_, port):
        answer = talk(port, HEAD + b"x-request-id: mine\r\n" + framing, timeout=2)
    assert statuses(answer) == [429]
    assert error_type(answer) == "overloaded"
    for header in (b"retry-after: ", b"x-request-id: mine\r\n", b"connection: close\r\n"):
        assert header in answer.lower()


def test_an_early_refusal_is_the_apps(engine: FakeEngine) -> None:
    """Status, headers and body are those of the app, which answers pages of other origins."""
    chat = {"messages": [{"role": "user", "content": "a"}]}
    bodies = {"/generate": {"inputs": "a"}, "/tokenize": {"inputs": "a"}, "/v1/completions": {"prompt": "a"}}
    with full(engine) as (server, _):
        for path, body in {**bodies, "/v1/chat/completions": chat, "/v1/responses": {"input": "a"}}.items():
            early = server.client.post(path, json=body)
            late = server.client.post(path, json=body, headers={"origin": "https://example.org"})
            assert early.status_code == late.status_code == 429
            assert early.json() == late.json()
            assert _own(early) == _own(late)
            assert {"x-request-id", "retry-after"} <= {*early.headers} & {*late.headers}


def _own(answer: httpx.Response) -> dict[str, str]:
    """The headers that do not differ from request to request, without those of CORS."""
    others = ("date", "x-request-id", "retry-after", "connection", "vary")
    return {name: value for name, value in answer.headers.items() if name not in others and "access" not in name}


def test_keys_are_checked_first(engine: FakeEngine) -> None:
    """Strangers do not learn that the server is full; a key without the route's scope is a 403."""
    with full(engine, api_key="first") as (server, _):
        assert server.generate().status_code == 401
        given = {"authorization": "Bearer other"}
        assert server.client.post("/generate", json={}, headers=given).status_code == 401
        given = {"authorization": "Bearer first"}
        assert server.client.post("/generate", json={}, headers=given).status_code == 429


def test_routes_that_need_no_permit_are_answered(engine: FakeEngine) -> None:
    """Monitors, and who wants to cancel, see a full server."""
    with full(engine) as (server, _):
        for path in ("/health", "/info", "/metrics", "/v1/models"):
            assert server.client.get(path).status_code == 200
        assert server.client.post("/cancel/other").status_code == 404


def test_early_refusals_are_counted(engine: FakeEngine) -> None:
    """Each is a request, and one that failed for overload."""
    with full(engine) as (server, _):
        assert [server.generate().status_code for _ in range(3)] == [429] * 3
        metrics = server.metrics()
    assert metrics['tgi_request_failure{err="overloaded"}'] == 3
    assert metrics["tgi_request_count"] == 4


def test_a_refused_connection_can_be_used_again(engine: FakeEngine) -> None:
    """If the whole request was read, the next ones are answered on the connection: 429, then 200 once there is room."""
    with full(engine) as (server, port), Connection(port) as connection:
        connection.send(request() + request())
        while len(statuses(connection.received)) < 2:
            connection.received += connection.socket.recv(65536)
        server.client.post("/cancel/running")
        engine.delay = 0.0
        wait_until(lambda: server.generate().status_code == 200)
        connection.send(request(BODY, b"Connection: close"))
        assert statuses(connection.read()) == [429, 429, 200]


def test_a_prefix_is_taken_off(engine: FakeEngine) -> None:
    """Behind a proxy that leaves --root-path on the path, requests are refused by their heads too."""
    with full(engine, root_path="/model") as (_, port):
        head = HEAD.replace(b"/generate", b"/model/generate") + b"Content-Length: 2000000\r\n\r\n"
        assert statuses(talk(port, head, timeout=2)) == [429]
