"""API keys, request ids, cancellation, other origins, and limits before the body."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from fakes import INFO, FakeEngine, Server, make_tokenizer, serve, wait_until
from peregrine_router.api.tgi.routes import TgiApi
from peregrine_router.app import build_app
from peregrine_router.http.auth import clean_request_id
from peregrine_router.launch import http_protocol as http_module
from peregrine_router.settings import Settings

KEY = {"authorization": "Bearer second"}


@pytest.fixture
def locked(engine: FakeEngine) -> Iterator[Server]:
    with serve(engine, api_key="first,second") as server:
        yield server


def routes() -> list[tuple[str, str]]:
    """Every (method, path) of the app, the documentation's among them."""
    app = build_app(FakeEngine(make_tokenizer()), make_tokenizer(), Settings(), INFO)
    found = [(sorted(route.methods or {"GET"})[0], str(route.path)) for route in app.routes if hasattr(route, "path")]
    found += [
        (method, route.path)
        for included in app.routes
        for route in getattr(getattr(included, "original_router", None), "routes", [])
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    return found


def test_every_route_but_liveness_wants_a_key(locked: Server) -> None:
    """Without a key every route of the app is a 401 in the shape of its family; the three of liveness answer."""
    checked = 0
    for method, path in routes():
        answer = locked.client.request(method, path, json={} if method == "POST" else None)
        if (method, path) in TgiApi.public_paths or path in ("/health", "/ping"):
            assert answer.status_code in (200, 405), path
            continue
        checked += 1
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.json()["error"]
        assert isinstance(error, dict) == path.startswith("/v1/")
    assert checked >= 15
    assert locked.client.get("/").status_code == 200
    assert locked.client.get("/nowhere").status_code == 401


def test_any_of_the_keys_opens(locked: Server) -> None:
    """Each key opens every route; the scheme in any case, the key in its own."""
    body = {"inputs": "the"}
    for header in ("Bearer first", "bearer second"):
        assert locked.client.post("/generate", json=body, headers={"authorization": header}).status_code == 200
    for header in ("Bearer First", "Basic first", "first", "Bearer first second", "Bearer first,second"):
        assert locked.client.post("/generate", json=body, headers={"authorization": header}).status_code == 401


def test_keys_of_a_file_are_read_again(engine: FakeEngine, tmp_path: Path) -> None:
    """A file holds keys or their hashes; changing it takes effect at once, also when it becomes empty."""
    file = tmp_path / "keys"
    file.write_text(f"# ours\nplain\n{hashlib.sha256(b'hashed').hexdigest()}\n\n")
    with serve(engine, api_key_file=str(file)) as server:

        def status(key: str) -> int:
            return server.client.get("/info", headers={"authorization": f"Bearer {key}"}).status_code

        assert [status(key) for key in ("plain", "hashed", "new")] == [200, 200, 401]
        file.write_text("new\n")
        assert [status(key) for key in ("plain", "hashed", "new")] == [401, 401, 200]
        file.write_text("")
        assert status("new") == 401
        file.unlink()
        assert status("new") == 401


def test_unreadable_file_is_refused_at_the_start(engine: FakeEngine) -> None:
    """A server whose keys cannot be read does not start open."""
    with pytest.raises(FileNotFoundError), serve(engine, api_key_file="/nowhere/keys"):
        pass


@pytest.mark.parametrize(
    ("given", "expected"), [("abc-1._:X", "abc-1._:X"), ("a b\u00e9\tc", "abc"), ("x" * 200, "x" * 128)]
)
def test_request_ids(server: Server, given: str, expected: str) -> None:
    """The client's id comes back, as far as it is harmless."""
    headers = [(b"x-request-id", given.encode())]
    assert server.client.get("/health", headers=headers).headers["x-request-id"] == expected


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/nowhere"), ("POST", "/generate"), ("GET", "/v1/models")]
)
def test_every_answer_has_an_id(server: Server, method: str, path: str) -> None:
    """Errors too; without one from the client it is ours, and new."""
    first, second = (server.client.request(method, path).headers["x-request-id"] for _ in range(2))
    assert len(first) == 32
    assert first != second
    assert clean_request_id("\u00e9") != ""


def test_the_servers_own_faults_have_an_id(engine: FakeEngine) -> None:
    """An answer to an exception that nobody foresaw has it as well, and a stream."""
    engine.submit_error = ZeroDivisionError("secret")
    with serve(engine) as server:
        answer = server.client.post("/generate", json={"inputs": "the"}, headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
        engine.submit_error = None
        answer = server.client.post("/generate_stream", json={"inputs": "the"}, headers={"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine"


class Posted(threading.Thread):
    """A request that is answered while the test goes on."""

    def __init__(self, server: Server, body: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__()
        self._post = partial(httpx.post, f"{server.url}/generate", json=body, headers=headers)
        self.start()

    def run(self) -> None:
        self._answer = self._post()

    def answer(self) -> httpx.Response:
        self.join()
        return self._answer


def test_cancel(engine: FakeEngine) -> None:
    """POST /cancel/{id} ends all sequences of a request; its client is told, and the places are free."""
    engine.delay = 0.3
    body = {"inputs": "the", "parameters": {"best_of": 2, "do_sample": True}}
    with serve(engine, max_concurrent_requests=2) as server:
        posted = Posted(server, body, {"x-request-id": "mine"})
        wait_until(lambda: len(engine.running) == 2)
        done = server.client.post("/cancel/mine")
        assert (done.status_code, done.json()) == (200, {"id": "mine", "cancelled": True})
        answer = posted.answer()
        assert (answer.status_code, answer.json()["error_type"]) == (499, "cancelled")
        assert not engine.running
        assert server.client.post("/cancel/mine").status_code == 404
        engine.delay = 0.0
        assert server.generate(best_of=2, do_sample=True).status_code == 200
        assert server.metrics()['tgi_request_failure{err="cancelled"}'] == 1


def test_cancelled_stream(engine: FakeEngine) -> None:
    """A stream that is cancelled ends with an event that says so."""
    engine.delay = 0.3
    with serve(engine) as server:
        headers = {"x-request-id": "mine"}
        with server.client.stream("POST", "/generate_stream", json={"inputs": "the"}, headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert httpx.post(f"{server.url}/cancel/mine").status_code == 200
            assert '"error_type":"cancelled"' in "".join(lines)


def test_nobody_cancels_anothers_request(engine: FakeEngine) -> None:
    """An id is found only with the key that made the request."""
    engine.delay = 0.3
    with serve(engine, api_key="first,second") as server:
        headers = {"x-request-id": "mine", "authorization": "Bearer first"}
        posted = Posted(server, {"inputs": "the"}, headers)
        wait_until(lambda: engine.running)
        assert server.client.post("/cancel/mine", headers=KEY).status_code == 404
        assert server.client.post("/cancel/mine", headers=headers).status_code == 200
        assert posted.answer().status_code == 499


def preflight(server: Server, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return server.client.options("/generate", headers=headers)


def test_origins(engine: FakeEngine) -> None:
    """Only pages of the origins that were named may call; browsers ask without a key."""
    with serve(engine, cors_allow_origin="https://a.example,https://b.example", api_key="k") as server:
        assert preflight(server, "https://b.example").headers["access-control-allow-origin"] == "https://b.example"
        assert "access-control-allow-origin" not in preflight(server, "https://c.example").headers
    with serve(engine) as server:
        assert preflight(server, "https://c.example").headers["access-control-allow-origin"] == "*"


def talk(server: Server, data: bytes) -> bytes:
    """What a raw connection is answered before it is closed."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        try:
            connection.sendall(data)
            while chunk := connection.recv(65536):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
    return answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 1_000_000,
    ],
    ids=["long line", "long header", "many headers", "endless header"],
)
def test_long_heads(server: Server, head: bytes) -> None:
    """Request lines and headers over the limit are answered 431 and the connection closed."""
    answer = talk(server, head)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert server.generate().status_code == 200


def test_slow_heads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that does not finish its headers is answered 408; one between two requests is not."""
    monkeypatch.setattr(http_module, "HEAD_SECONDS", 0.3)
    assert talk(server, b"GET /health HTTP/1.1\r\nHos").startswith(b"HTTP/1.1 408 ")
    assert talk(server, b"").startswith(b"HTTP/1.1 408 ")
    assert server.client.get("/health").status_code == 200
    time.sleep(0.5)
    assert server.client.get("/health").status_code == 200


def test_a_body_is_no_head(server: Server) -> None:
    """A large body right behind its headers counts against its own limit."""
    assert server.generate("a" * 500_000).json()["error"].startswith("Input validation error: `inputs`")
    assert server.generate().status_code == 200


def test_a_tenant_is_its_key(locked: Server) -> None:
    """Requests of one key share tenant and salt whatever the client says; another key has others, and no key shows."""
    for key in ("first", "first", "second"):
        body = {"prompt": "the", "max_tokens": 2, "user": "somebody"}
        headers = {"authorization": f"Bearer {key}", "x-request-id": "same"}
        assert locked.client.post("/v1/completions", json=body, headers=headers).status_code == 200
    tenants = [(request.tenant, request.cache_salt) for request in locked.engine.requests]
    assert tenants[0] == tenants[1]
    assert tenants[0][0] != tenants[2][0]
    assert tenants[0][1] != tenants[2][1]
    assert all(name and len(salt) == 32 for name, salt in tenants)
    assert hashlib.sha256(b"first").digest() != tenants[0][1]


def test_who_is_alone_is_nameless(engine: FakeEngine) -> None:
    """Without keys there is no tenant and no salt; with a single one there is nobody to share with, but a salt."""
    with serve(engine) as server:
        server.generate()
    with serve(engine, api_key="only") as server:
        server.client.post("/generate", json={"inputs": "the"}, headers={"authorization": "Bearer only"})
    assert [(request.tenant, len(request.cache_salt)) for request in engine.requests] == [("", 0), ("", 32)]


def test_a_salt_is_of_one_process(engine: FakeEngine) -> None:
    """The same key has another salt in another server, so it cannot be worked out from the key."""
    for _ in range(2):
        with serve(engine, api_key="only") as server:
            server.client.post("/generate", json={"inputs": "the"}, headers={"authorization": "Bearer only"})
    assert len({request.cache_salt for request in engine.requests}) == 2
