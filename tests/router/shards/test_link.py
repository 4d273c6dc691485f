"""The router's end of the link to a shard, on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

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
