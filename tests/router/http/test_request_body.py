"""Bodies that are refused before anything is made of them."""

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.http import request_body
from peregrine_router.text.tokenizer import Tokenizer

JSON = {"content-type": "application/json"}
LIMIT = 5000


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[Server]:
    with serve(FakeEngine(tokenizer), payload_limit=LIMIT) as server:
        yield server


def post(server: Server, content: bytes | str, headers: dict[str, str] = JSON) -> httpx.Response:
    return server.client.post("/generate", content=content, headers=headers)


@pytest.mark.parametrize(
    "content",
    [
        '{"inputs": "the"',
        "nonsense",
        '{"inputs": "the", "parameters": {"temperature": NaN}}',
        '{"inputs": "\\ud800"}',
        b'{"inputs": "\xff"}',
        '{"inputs":' + "[" * 300 + "]" * 300 + "}",
        "",
    ],
    ids=["cut", "nonsense", "nan", "lone surrogate", "not utf-8", "deep", "empty"],
)
def test_malformed_json(server: Server, content: bytes | str) -> None:
    """A body that is not JSON (NaN, lone surrogates and deep nesting are not) is answered 422."""
    answer = post(server, content)
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "validation"
    assert answer.json()["error"].startswith("Input validation error: malformed JSON: ")


@pytest.mark.parametrize("type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_content_type(server: Server, type: str | None) -> None:
    """A body that does not claim to be JSON is answered 415, which also keeps other sites' forms out."""
    answer = post(server, '{"inputs": "a"}', {} if type is None else {"content-type": type})
    assert answer.status_code == 415
    assert answer.json()["error_type"] == "unsupported_media_type"


def test_content_type_with_charset(server: Server) -> None:
    """Parameters of the content type do no harm."""
    assert post(server, '{"inputs": "a"}', {"content-type": "Application/JSON; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 6 * LIMIT, 400 * LIMIT])
def test_too_large(server: Server, size: int) -> None:
    """A body over the limit is answered 413, also one sent in chunks without a length."""
    body = json.dumps({"inputs": "a" * size}).encode()
    for content in (body, iter([body[: size // 2], body[size // 2 :]])):
        try:
            answer = server.client.post("/generate", content=content, headers=JSON)
        except (httpx.WriteError, httpx.ReadError):
            assert size > 8 * LIMIT  # The connection was closed while the client still sent.
            continue
        assert answer.status_code == 413
        assert answer.json()["error_type"] == "payload_too_large"
        assert str(LIMIT) in answer.json()["error"]


def test_slow_body(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not arrive in time is answered 408."""
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.2)

    def trickle() -> Iterator[bytes]:
        yield b'{"inputs": '
        time.sleep(0.5)
        yield b'"the"}'

    answer = server.client.post("/generate", content=trickle(), headers=JSON)
    assert (answer.status_code, answer.json()["error_type"]) == (408, "timeout")


def test_client_that_leaves_while_sending(server: Server) -> None:
    """A connection closed in the middle of a body leaves the server well."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b'Content-Length: 100\r\n\r\n{"inputs":')
    assert server.generate().status_code == 200
