"""Bodies that are refused before anything is made of them."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeEngine, Server, serve
from peregrine_router.http import request_body
from peregrine_router.text.tokenizer import Tokenizer

JSON = {"content-type": "application/json"}
LIMIT = 5000
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text('[{:,"\\a'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[{:,"\\a'), inner),
)


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


@pytest.mark.parametrize(
    ("item", "count", "name"),
    [
        ("[]", request_body.MAX_MEMBERS, "objects, arrays and names"),
        ('{"a":0}', request_body.MAX_MEMBERS // 2, "objects, arrays and names"),
        ("0", request_body.MAX_VALUES + 1, "values"),
    ],
)
def test_too_many_parts(server: Server, item: str, count: int, name: str) -> None:
    """A body of more parts than any request needs is answered 413 before anything is made of it."""
    with serve(server.engine) as roomy:
        answer = post(roomy, f'{{"inputs": "the", "x": [{",".join([item] * count)}]}}')
    assert answer.status_code == 413
    assert answer.json()["error"].endswith(name)


def test_marks_in_text_are_not_counted() -> None:
    """A prompt may be full of brackets, colons and commas, with quotes and backslashes between."""
    text = '[{:, "quoted" \\ ' * request_body.MAX_VALUES
    assert request_body.parse_json(json.dumps({"inputs": text, "n": [1, 2]}).encode())["inputs"] == text


@given(JSON_VALUES)
def test_parts_are_counted_outside_strings(value: object) -> None:
    """As many as are left of the text when its strings are blanked, wherever the chunks of the count end."""
    text = json.dumps(value)
    count = sum(mark in "[{:" for mark in STRING.sub("", text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_body, "_CHUNK", 5)
        assert not request_body.exceeds(count, text.encode(), b"[{:")
        assert request_body.exceeds(count - 1, text.encode(), b"[{:")


def test_large_bodies_are_parsed_on_a_thread(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that takes long to parse does not stop the event loop."""
    names: list[str] = []
    parse = request_body.parse_json

    def record(body: bytes) -> Any:
        names.append(threading.current_thread().name)
        return parse(body)

    monkeypatch.setattr(request_body, "parse_json", record)
    with serve(server.engine) as roomy:
        for size in (10, request_body.INLINE_BYTES):
            post(roomy, json.dumps({"inputs": "the", "x": "a" * size}))
    assert [name.startswith("body") for name in names] == [False, True]


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
