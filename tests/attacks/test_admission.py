"""Clients that post the largest texts and leave, do not read, or will be refused: others are served meanwhile."""

import socket
import time
from collections.abc import Iterator

import pytest

from attack_inputs import ATTACKS, BODY_BYTES
from attacked import MAX_GROWTH_BYTES, MAX_LATE_SECONDS, AttackedServer
from untouched import untouched

pytestmark = [pytest.mark.slow, pytest.mark.alone]

TEXT = b"a b " * 495_000
CHAT = b'{"messages":[{"role":"user","content":"%s"}]}'
BODIES = {
    "/tokenize": b'{"inputs":"%s"}' % TEXT,
    "/generate": b'{"inputs":"%s"}' % TEXT,
    "/v1/completions": b'{"prompt":"%s"}' % TEXT,
    "/v1/chat/completions": CHAT % TEXT,
    "/chat_tokenize": CHAT % TEXT,
    "/detokenize": b'{"tokens":[%s]}' % b",".join([b"3000"] * 131_000),
}
HEAD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
CALM_SECONDS = 3.0
"""Time in which a short prompt is answered on a machine that others share; without an attack it takes 0.2 s."""


@pytest.fixture(scope="module")
def server() -> Iterator[AttackedServer]:
    with AttackedServer("--slow-client-timeout", "5") as server:
        yield server


@pytest.fixture(autouse=True)
def _as_before(server: AttackedServer) -> Iterator[None]:
    """Afterwards nothing runs, nothing is open, and the golden request has the same answer."""
    with untouched(server, 2 * MAX_GROWTH_BYTES):
        yield


def post(server: AttackedServer, path: str) -> socket.socket:
    """Sends a body; nothing is read."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(HEAD % (path.encode(), len(BODIES[path])) + BODIES[path])
    return connection


def seconds_of_a_short_prompt(server: AttackedServer) -> float:
    start = time.monotonic()
    assert server.generate("the falcon", max_new_tokens=1).status_code == 200
    return time.monotonic() - start


@pytest.mark.parametrize("path", BODIES)
def test_clients_that_left_keep_nobody_waiting(server: AttackedServer, path: str) -> None:
    """Twenty that posted 2 MB and closed the connection are not worked for: 46 s before."""
    for _ in range(20):
        post(server, path).close()
    assert seconds_of_a_short_prompt(server) < CALM_SECONDS


@pytest.mark.parametrize("path", BODIES)
def test_clients_that_do_not_read_hold_little(server: AttackedServer, path: str) -> None:
    """Eight of them take tens of megabytes, not gigabytes, and keep nobody waiting."""
    times: list[float] = []

    def attack() -> list[int]:
        connections = [post(server, path) for _ in range(8)]
        times.extend(seconds_of_a_short_prompt(server) for _ in range(10))
        for connection in connections:
            connection.close()
        return []

    damage = server.watch(attack)
    assert max(times) < CALM_SECONDS, damage
    assert damage.growth < MAX_GROWTH_BYTES, damage


@pytest.mark.parametrize("name", ["tokenize", "tokenize one word", "tokenize lines"])
def test_tokenizing_the_largest_text_takes_little(server: AttackedServer, name: str) -> None:
    """Two million tokens at most are made and sent in pieces: they took 500 to 860 MB."""
    damage = server.attack(*ATTACKS[name](BODY_BYTES))
    assert damage.statuses == [200]
    assert damage.growth < MAX_GROWTH_BYTES / 2, damage
    assert damage.late < server.calm_late + MAX_LATE_SECONDS, damage
