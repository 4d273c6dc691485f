"""Raw HTTP against a real server: requests that two parsers could read differently, and clients that are slow.

Whatever is sent, the server answers a golden request as before, and keeps neither memory nor descriptors of it.
"""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from raw_http import BODY, CHUNKED, HEAD, Connection, chunks, request, statuses, talk
from serving import ServerProcess
from untouched import golden, memory, untouched

pytestmark = pytest.mark.slow

CLOSE = b"Connection: close\r\n"
KEY = b"Authorization: Bearer secret\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
OPEN_HEAD = HEAD + KEY + CLOSE
REFUSED = {
    "two lengths": OPEN_HEAD + LENGTH + b"Content-Length: 0\r\n\r\n" + BODY,
    "the same length twice": OPEN_HEAD + LENGTH * 2 + b"\r\n" + BODY,
    "a list of lengths": OPEN_HEAD + b"Content-Length: 5, 5\r\n\r\n" + BODY,
    "a signed length": OPEN_HEAD + b"Content-Length: +5\r\n\r\n" + BODY,
    "a hexadecimal length": OPEN_HEAD + b"Content-Length: 0x5\r\n\r\n" + BODY,
    "a huge length": OPEN_HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "length and chunks": OPEN_HEAD + LENGTH + CHUNKED + chunks(BODY) + b"\r\n" + SMUGGLED,
    "chunks and length": OPEN_HEAD + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + chunks(BODY) + b"\r\n",
    "a coding that only looks like chunks": OPEN_HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + chunks(BODY) + b"\r\n",
    "chunks that are not the last coding": OPEN_HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunks(BODY),
    "two codings": OPEN_HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(BODY),
    "a space before the colon": OPEN_HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + chunks(BODY) + b"\r\n",
    "a folded header": OPEN_HEAD + b"X-A: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY,
    "line feeds alone": request(BODY, KEY.strip()).replace(b"\r\n", b"\n"),
    "one line feed alone": OPEN_HEAD + b"X-A: b\n" + LENGTH + b"\r\n" + BODY,
    "a carriage return alone": OPEN_HEAD + b"X-A: b\rX-B: c\r\n" + LENGTH + b"\r\n" + BODY,
    "NUL in a header": OPEN_HEAD + b"X-A: b\0c\r\n" + LENGTH + b"\r\n" + BODY,
    "two hosts": OPEN_HEAD + b"Host: y\r\n" + LENGTH + b"\r\n" + BODY,
    "a chunk size that is none": OPEN_HEAD + CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": OPEN_HEAD + CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a huge chunk size": OPEN_HEAD + CHUNKED + b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": OPEN_HEAD + CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",
    "a chunk extension that ends in a line feed": OPEN_HEAD + CHUNKED + b"5;a\nhello\r\n0\r\n\r\n",
    "an endless chunk extension": OPEN_HEAD + CHUNKED + b"5;" + b"a" * 100_000,
    "endless trailers": OPEN_HEAD + CHUNKED + chunks(BODY) + b"X-A: b\r\n" * 10_000,
    "too many headers": OPEN_HEAD + b"A: b\r\n" * 1000 + b"\r\n",
    "a request of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 300,
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version that is none": b"GET /health HTTP/3.7\r\nHost: x\r\n\r\n",
}
"""Requests that end in a 4xx before any route sees them, whatever is behind them on the connection."""


class Target(ServerProcess):
    """A server with a key."""

    def __init__(self) -> None:
        super().__init__(
            "--dtype", "float32", "--api-key", "secret", "--slow-client-timeout", "2", "--payload-limit", "9999"
        )
        self.client.headers["authorization"] = "Bearer secret"


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    server = Target()
    with server:
        yield server


@pytest.fixture(autouse=True)
def _as_before(target: Target) -> Iterator[None]:
    """Afterwards nothing runs, nothing is open, and the golden request has the same answer."""
    with untouched(target):
        yield


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_ambiguous_is_refused(target: Target, data: bytes) -> None:
    """One answer, 4xx, and the end: what follows on the connection is not read as a request."""
    found = statuses(talk(target.port, data + SMUGGLED.replace(b"\r\n\r\n", b"\r\n" + KEY + b"\r\n")))
    assert len(found) == 1
    assert 400 <= found[0] < 500


def test_a_body_hides_no_request(target: Target) -> None:
    """Requests within a body, or behind `Connection: close`, are never answered."""
    hidden = request(SMUGGLED, KEY + CLOSE.strip())
    assert statuses(talk(target.port, hidden)) == [422]
    assert statuses(talk(target.port, request(BODY, KEY + CLOSE.strip()) + SMUGGLED)) == [200]
    assert statuses(talk(target.port, OPEN_HEAD + CHUNKED + chunks(SMUGGLED) + b"\r\n" + SMUGGLED)) == [422]


def test_a_key_counts_for_its_request_only(target: Target) -> None:
    """The second of two requests on a connection needs a key of its own; a trailer is none."""
    assert statuses(talk(target.port, request(BODY, KEY.strip()) + request(BODY, CLOSE.strip()))) == [200, 401]
    trailer = HEAD + CLOSE + CHUNKED + chunks(BODY) + KEY + b"\r\n"
    assert statuses(talk(target.port, trailer)) == [401]


@pytest.mark.parametrize("is_refused", [True, False], ids=["behind a 401", "before the answer"])
def test_endless_trailers_take_no_memory(target: Target, is_refused: bool) -> None:
    """The server takes little of 30 MB of trailers, and keeps none."""
    before = memory(target.process.pid)
    with Connection(target.port) as connection:
        connection.send(HEAD + (b"" if is_refused else KEY) + CHUNKED + chunks(BODY))
        time.sleep(0.1)
        connection.flood(b"X-A: b\r\n" * 1000, 30_000_000)
        assert statuses(connection.read()) in ([401], [431])
    assert memory(target.process.pid) - before < 30_000_000


def _silent(connection: Connection) -> None:
    """Sends nothing."""


def _slow_head(connection: Connection) -> None:
    """Sends a header that never ends, a byte at a time."""
    connection.send(b"GET /health HTTP/1.1\r\nX-A: ")
    while not connection.is_closed_within(0.2):
        connection.send(b"a")


def _slow_trailers(connection: Connection) -> None:
    """Sends trailers behind a 401."""
    connection.send(HEAD + CHUNKED + chunks(BODY))
    while not connection.is_closed_within(0.2):
        connection.send(b"X-A: b\r\n")


def _slow_body_after_refusal(connection: Connection) -> None:
    """Sends the body of a request that was refused, a byte at a time."""
    connection.send(HEAD + b"Content-Length: 9000\r\n\r\n")
    while not connection.is_closed_within(0.2):
        connection.send(b"a")


def _reads_no_stream(connection: Connection) -> None:
    """Asks for streams and reads none."""
    for _ in range(400):
        connection.send(request(BODY[:-3] + b'000, "ignore_eos": true}}', KEY.strip(), path=b"/generate_stream"))
    _wait_for_the_end(connection)


def _reads_no_answer(connection: Connection) -> None:
    """Asks for large answers and reads none."""
    connection.socket.setblocking(False)
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n"
    end = time.monotonic() + 15
    while time.monotonic() < end:
        try:
            connection.socket.send(ask * 10)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return
    raise AssertionError("the connection is still open")


def _wait_for_the_end(connection: Connection) -> None:
    """Waits, without reading, until the server has given the connection up."""
    for _ in range(300):
        info = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if struct.unpack("B", info)[0] != 1:
            return
        time.sleep(0.05)
    raise AssertionError("the connection is still open")


SLOW = (_silent, _slow_head, _slow_trailers, _slow_body_after_refusal, _reads_no_stream, _reads_no_answer)


def test_slow_clients_are_given_up(target: Target) -> None:
    """Eight of each kind hold their connections for some seconds at most, and nobody waits for them meanwhile."""

    def run(client: Callable[[Connection], None]) -> None:
        with Connection(target.port, timeout=15) as connection:
            client(connection)
            is_closed = connection.is_closed_within(15)  # Waits: between reading and writing a count, counts are lost.
            ended[client.__name__] += is_closed

    ended: Counter[str] = Counter()
    threads = [threading.Thread(target=run, args=(client,)) for client in SLOW * 8]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    assert golden(target)
    assert time.monotonic() - start < 5
    for thread in threads:
        thread.join()
    assert ended == {client.__name__: 8 for client in SLOW}
