"""Limits on what comes before a body."""

import socket
import time

import pytest

from fakes import Server
from peregrine_router.launch import http_protocol

pytestmark = pytest.mark.slow


def talk(server: Server, data: bytes) -> bytes:
    """All that a raw connection is answered until it is closed."""
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
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    assert talk(server, b"GET /health HTTP/1.1\r\nHos").startswith(b"HTTP/1.1 408 ")
    assert talk(server, b"").startswith(b"HTTP/1.1 408 ")
    assert server.client.get("/health").status_code == 200
    time.sleep(0.5)
    assert server.client.get("/health").status_code == 200


def test_a_body_is_no_head(server: Server) -> None:
    """A large body right behind its headers counts against its own limit."""
    assert server.generate("a" * 500_000).json()["error"].startswith("Input validation error: `inputs`")
    assert server.generate().status_code == 200
