"""The router's end of the link to a shard, on real sockets."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from peregrine_router.shards import link
from peregrine_router.shards.link import ShardLink


class Ends:
    """A link, what it delivered, and the shard's socket, which is not connected yet."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", path: Path) -> None:
        self.address = f"ipc://{path}"
        self.delivered: list[bytes] = []
        self.link = ShardLink(context, path, self.delivered.append)
        self.shard = context.socket(zmq.PAIR)

    async def until_delivered(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.delivered) < count:  # noqa: ASYNC110 - the link signals nothing else
                await asyncio.sleep(0.001)


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    context = zmq.Context()
    ends = Ends(context, tmp_path / "shard.sock")
    yield ends
    ends.link.close()
    ends.shard.close(linger=0)
    context.term()


async def test_messages_come_in_order(ends: Ends) -> None:
    """All that a shard sends is delivered once, including messages that come while the router sends."""
    ends.shard.connect(ends.address)
    ends.shard.send(b"0")
    await ends.until_delivered(1)
    for number in range(1, 100):
        ends.shard.send(str(number).encode())
        assert ends.link.send(b"step")
    await ends.until_delivered(100)
    assert ends.delivered == [str(number).encode() for number in range(100)]
    assert [ends.shard.recv() for _ in range(99)] == [b"step"] * 99


async def test_without_a_shard_nothing_is_sent(ends: Ends) -> None:
    """The router is told at once, and does not wait for a shard that may never come."""
    assert not ends.link.send(b"step")


async def test_a_shard_that_sends_without_end_does_not_hold_the_loop(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other work of the event loop has its turn between its messages, and each is delivered all the same."""
    monkeypatch.setattr(link, "MAX_AT_ONCE", 10)
    ends.shard.connect(ends.address)
    for _ in range(500):
        ends.shard.send(b"1")
    counts = []
    async with asyncio.timeout(5):
        while len(ends.delivered) < 500:
            counts.append(len(ends.delivered))
            await asyncio.sleep(0)
    assert max(later - earlier for earlier, later in itertools.pairwise([*counts, 500])) <= 20


async def test_a_closed_link_delivers_nothing(ends: Ends) -> None:
    """Messages that come after the link is closed go nowhere; closing it twice is no error."""
    ends.shard.connect(ends.address)
    ends.shard.send(b"0")
    await ends.until_delivered(1)
    ends.shard.send(b"1", zmq.NOBLOCK)
    ends.link.close()
    await asyncio.sleep(0.05)
    assert ends.delivered == [b"0"]
    ends.link.close()


async def test_a_path_that_cannot_be_bound_is_said_in_one_line(tmp_path: Path) -> None:
    """The socket is closed, so that the context ends at once."""
    context = zmq.Context()
    with pytest.raises(OSError, match=r"^no socket in .* set TMPDIR to another folder$"):
        ShardLink(context, tmp_path / ("x" * 108), lambda _: None)
    await asyncio.wait_for(asyncio.to_thread(context.term), 5)


async def test_a_message_that_is_too_long_is_a_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ drops it and its connection without a word: a request would wait for its answer for ever."""
    monkeypatch.setattr(link, "MAX_MESSAGE_BYTES", 1000)
    context, lost = zmq.Context(), asyncio.Event()
    delivered: list[bytes] = []
    router = ShardLink(context, tmp_path / "shard.sock", delivered.append, lost.set)
    shard = context.socket(zmq.PAIR)
    shard.connect(f"ipc://{tmp_path / 'shard.sock'}")
    shard.send(bytes(1000))
    shard.send(bytes(1001))
    async with asyncio.timeout(5):
        await lost.wait()
    assert delivered == [bytes(1000)]
    router.close()
    shard.close(linger=0)
    context.term()
