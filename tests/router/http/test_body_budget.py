"""Bodies that arrive at once share a bound."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException

from fakes import FakeEngine, Server, serve
from peregrine_router.http.body_budget import BodyBudget, BodyLease
from peregrine_router.text.tokenizer import Tokenizer
from raw_http import HEAD, Connection, error_type, request, statuses

LIMIT = 100_000
BODY = b'{"inputs": "the", "x": "%s"}' % (b"a" * (LIMIT - 1000))
SLOW = HEAD + b"Content-Length: %d\r\n\r\n" % LIMIT + BODY[:90_000]
"""A body that never ends."""


@pytest.fixture
def server(tokenizer: Tokenizer) -> Iterator[Server]:
    with serve(FakeEngine(tokenizer), payload_limit=LIMIT, payload_memory=250_000) as server:
        yield server


def connect(server: Server, address: str = "127.0.0.1") -> Connection:
    """A connection from an address of this machine."""
    port = int(server.url.rpartition(":")[2])
    connection = Connection(port)
    connection.socket.close()
    connection.socket = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))
    return connection


def test_an_address_that_sends_too_much_is_refused(server: Server) -> None:
    """The body for which there is no room is answered 429 with Retry-After, before it has arrived."""
    first, second, third = (connect(server) for _ in range(3))
    with first, second, third:
        for connection in (first, second):
            connection.send(SLOW)
        assert not second.is_closed_within(0.5)
        third.send(SLOW)
        answer = third.read()
    assert statuses(answer) == [429]
    assert error_type(answer) == "overloaded"
    assert b"retry-after: 1\r\n" in answer.lower()


def test_slow_bodies_of_one_address_give_way_to_another(server: Server) -> None:
    """The oldest body of who holds most is refused, and the other client is answered."""
    first, second, other = connect(server, "127.0.0.2"), connect(server, "127.0.0.2"), connect(server)
    with first, second, other:
        first.send(SLOW)
        assert not first.is_closed_within(0.3)
        second.send(SLOW)
        assert not second.is_closed_within(0.3)
        other.send(request(BODY))
        assert statuses(other.read(b"\r\n\r\n")) == [200]
        assert statuses(first.read()) == [429]
        second.send(BODY[90_000:] + b" " * (LIMIT - len(BODY)))
        assert statuses(second.read(b"\r\n\r\n")) == [200]


def test_room_comes_back(server: Server) -> None:
    """Bodies that have been answered, refused or left alone hold nothing."""
    for number in range(20):
        assert server.client.post("/generate", content=BODY, headers={"content-type": "application/json"}).is_success
        with connect(server) as connection:
            connection.send(SLOW if number % 2 else SLOW.replace(b"%d" % LIMIT, b"%d" % (9 * LIMIT)))
            assert not connection.is_closed_within(0.02)


async def test_a_body_that_waits_for_its_parser_gives_way_too() -> None:
    """It is never parsed, and its client is told so."""
    budget = BodyBudget(100)
    waiting, other = BodyLease(budget, ("", "a")), BodyLease(budget, ("", "b"))
    waiting.take(90)

    async def wait() -> None:
        async with waiting.waiting():
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    other.take(20)
    with pytest.raises(HTTPException, match="429"):
        await task
    assert budget.num_bytes == 20
    other.release()
    waiting.release()
    assert budget.num_bytes == 0
