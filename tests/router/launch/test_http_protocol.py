"""Limits on what comes before, between and behind bodies."""

import time
from collections.abc import Iterator

import pytest

from fakes import FakeEngine, Server, serve, wait_until
from peregrine_router.launch import http_protocol
from raw_http import BODY, CHUNKED, HEAD, Connection, chunks, error_type, request, statuses, talk

pytestmark = pytest.mark.slow

CLOSE = b"Connection: close"
STREAM = request(path=b"/generate_stream")


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture
def locked(engine: FakeEngine) -> Iterator[Server]:
    with serve(engine, api_key="first,second") as server:
        yield server


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 1_000_000,
        b"\r\n" * 100_000,
    ],
    ids=["long line", "long header", "many headers", "endless header", "empty lines"],
)
def test_long_heads(server: Server, head: bytes) -> None:
    """Request lines and headers over the limit are answered 431 and the connection closed."""
    assert statuses(talk(port_of(server), head)) == [431]
    assert server.generate().status_code == 200


def test_slow_heads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that does not finish its headers is answered 408; one between two requests is not."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    assert statuses(talk(port_of(server), b"GET /health HTTP/1.1\r\nHos")) == [408]
    assert statuses(talk(port_of(server), b"")) == [408]
    assert server.client.get("/health").status_code == 200
    time.sleep(0.5)
    assert server.client.get("/health").status_code == 200


def test_a_body_is_no_head(server: Server) -> None:
    """A large body right behind its headers counts against its own limit."""
    assert server.generate("a" * 500_000).json()["error"].startswith("Input validation error: `inputs`")
    assert server.generate().status_code == 200


@pytest.mark.parametrize("endless", [b"X-A: b\r\n", b"a"], ids=["many", "long"])
def test_endless_trailers(server: Server, endless: bytes) -> None:
    """Trailers over the limit are answered 431, and the rest of them is not taken."""
    with Connection(port_of(server)) as connection:
        connection.send(HEAD + CHUNKED + chunks(BODY))
        connection.flood(endless * 1000, 30_000_000)
        assert statuses(connection.read()) == [431]


def test_endless_chunk_extension(server: Server) -> None:
    """A chunk's head that never ends is answered like a trailer that never ends."""
    with Connection(port_of(server)) as connection:
        connection.send(HEAD + CHUNKED + b"5;")
        connection.flood(b"a" * 1000, 1_000_000)
        assert statuses(connection.read()) == [431]


def test_trailers_are_no_headers(locked: Server) -> None:
    """Trailers are dropped: no key is valid in one, and none overrides a header."""
    key = b"Authorization: Bearer first\r\n"
    trailers = key + b"X-Request-Id: trailer\r\n\r\n"
    assert statuses(talk(port_of(locked), HEAD + b"Connection: close\r\n" + CHUNKED + chunks(BODY) + trailers)) == [401]
    head = HEAD + key + b"X-Request-Id: header\r\nConnection: close\r\n" + CHUNKED
    answer = talk(port_of(locked), head + chunks(BODY[:9], BODY[9:]) + trailers)
    assert statuses(answer) == [200]
    assert b"x-request-id: header\r\n" in answer


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000\r\n\r\n", CHUNKED + b"5\r\n"])
def test_a_body_behind_a_refusal_is_not_waited_for(locked: Server, framing: bytes) -> None:
    """A 401 comes before the body, says that the connection closes, and is followed by that."""
    with Connection(port_of(locked)) as connection:
        connection.send(HEAD + framing)
        assert connection.is_closed_within(1.0)
        assert statuses(connection.received) == [401]
        assert b"connection: close\r\n" in connection.received
        assert connection.flood(b"a" * 100_000, 10**9) < 10**9


def test_an_early_refusal_is_not_lost(locked: Server) -> None:
    """A client that sends its whole body before it reads finds the answer, not a reset."""
    for _ in range(10):
        with Connection(port_of(locked)) as connection:
            connection.send(HEAD + b"Content-Length: 3000000\r\n\r\n")
            time.sleep(0.02)
            connection.send(b"a" * 3_000_000)
            assert statuses(connection.read()) == [401]


def test_pipelined_requests_are_answered_in_order(engine: FakeEngine, server: Server) -> None:
    """Requests sent at once are answered one after the other on the same connection, whatever their number."""
    ids = [b"%d" % number for number in range(60)]
    data = b"".join(request(BODY, b"X-Request-Id: " + id) for id in ids)
    answer = talk(port_of(server), data + request(BODY, CLOSE, b"X-Request-Id: last"))
    assert statuses(answer) == [200] * 61
    found = [line.partition(b": ")[2] for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert found == [*ids, b"last"]


def test_pipelined_requests_end_with_their_connection(engine: FakeEngine, server: Server) -> None:
    """A client that leaves ends the request that runs, and those behind it never start."""
    engine.delay = 0.2
    with Connection(port_of(server)) as connection:
        connection.send(STREAM + STREAM + request())
        wait_until(lambda: engine.running)
    wait_until(lambda: engine.cancelled, 2)
    time.sleep(0.3)
    assert len(engine.requests) == 1
    assert not engine.running


@pytest.mark.parametrize(
    "behind",
    [b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"NO HTTP\r\n\r\n", b"a" * 1_000_000, b"GET / HT"],
    ids=["too many headers", "garbage", "too much", "too slow"],
)
def test_nothing_is_written_into_an_answer(
    engine: FakeEngine, server: Server, behind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad input behind a request whose stream runs changes nothing of the stream; then the connection is closed."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
    engine.delay = 0.1
    with Connection(port_of(server)) as connection:
        connection.send(STREAM)
        connection.read(until=b"data:")
        connection.send(behind)
        answer = connection.read()
    stream, end, rest = answer.partition(b"\r\n0\r\n\r\n")
    assert statuses(stream) == [200]
    assert b"HTTP/1.1" not in stream[12:]
    assert end
    assert statuses(rest) in ([], [400], [408], [431])
    assert not engine.running


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, CHUNKED + chunks(BODY) + b"\r\n"],
    ids=["length", "chunked"],
)
def test_an_upgrade_is_answered_in_http_1(server: Server, body: bytes) -> None:
    """A client that offers HTTP/2 in clear text with a body is answered, and so is its next request."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    answer = talk(port_of(server), HEAD + upgrade + body + request(BODY, CLOSE))
    assert statuses(answer) == [200, 200]
    with Connection(port_of(server)) as connection:  # In two pieces, the first without the whole body.
        data = HEAD + upgrade + body
        connection.send(data[:-20])
        time.sleep(0.05)
        connection.send(data[-20:] + request(BODY, CLOSE))
        assert statuses(connection.read()) == [200, 200]


def test_a_body_that_is_no_http_is_one_error(server: Server) -> None:
    """A chunk whose size is none is answered 400, in JSON, once."""
    answer = talk(port_of(server), HEAD + CHUNKED + b'5\r\n{"inp\r\nzz\r\n')
    assert statuses(answer) == [400]
    assert error_type(answer) == "bad_request"


def test_who_does_not_read_is_disconnected(engine: FakeEngine) -> None:
    """A client that sends requests and reads no answer loses its connection, whatever the route."""
    with serve(engine, slow_client_timeout=0.3) as server, Connection(port_of(server)) as connection:
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.socket.settimeout(3)
        assert connection.flood(ask, 100_000_000) < 100_000_000
        assert server.generate().status_code == 200
