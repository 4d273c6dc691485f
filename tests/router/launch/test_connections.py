"""Limits on open connections."""

import resource
from typing import Any

import pytest

from fakes import FakeEngine, Server, serve, wait_until
from peregrine_router.launch.connections import ConnectionLimits, raise_file_limit
from raw_http import Connection, error_type, request, statuses


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status"), [({"max_connections": 3}, 503), ({"max_connections_per_address": 3}, 429)]
)
def test_too_many_connections(engine: FakeEngine, options: dict[str, Any], status: int) -> None:
    """One connection too many is answered 503, or 429 if its address has too many, and there is room once one ends."""
    with serve(engine, **options) as server:
        held = [Connection(port_of(server)) for _ in range(3)]
        for connection in held:
            connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.read(until=b"\r\n\r\n")
        with Connection(port_of(server)) as refused:
            refused.send(request())
            answer = refused.read()
        assert statuses(answer) == [status]
        assert error_type(answer) == "overloaded"
        assert b"retry-after: 1\r\n" in answer
        held.pop().socket.close()
        wait_until(lambda: _answers(port_of(server)))
        for connection in held:
            connection.socket.close()


def _answers(port: int) -> bool:
    with Connection(port) as connection:
        connection.send(request(b'{"inputs": "the"}', b"Connection: close"))
        return statuses(connection.read()) == [200]


def test_addresses_are_counted_apart() -> None:
    """One address that has too many leaves room for another, and is forgotten when it has none."""
    limits = ConnectionLimits(8, 2)
    assert [limits.open("a") for _ in range(3)] == [0, 0, 429]
    assert limits.open("b") == 0
    limits.close("a")
    limits.close("a")
    assert limits.open("a") == 0
    assert not limits.is_flooded


def test_a_flood_is_not_answered() -> None:
    """Beyond twice the limit connections are closed without a word, so that refusing takes no room itself."""
    limits = ConnectionLimits(2)
    assert [limits.open("a") for _ in range(5)] == [0, 0, 503, 503, 503]
    assert limits.is_flooded


def test_the_limit_of_open_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit rises as far as the hard one; what that leaves is the limit of connections."""
    chosen: dict[str, int] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: chosen.update(soft=limit[0]))
    assert raise_file_limit(2000) == 2000
    assert chosen["soft"] == 2128
    assert raise_file_limit(8192) == 4096 - 128
    chosen.clear()
    assert raise_file_limit(500) == 500
    assert not chosen


def test_where_files_are_scarce_half_of_them_are_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 64 leaves room for a few clients, not for one."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert raise_file_limit(8192) == 32
