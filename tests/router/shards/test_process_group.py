"""Messages of the shard processes; tests/test_serve.py starts real ones."""

import asyncio
from pathlib import Path

import pytest

from peregrine_router.shards.process_group import ShardError, ShardGroup
from peregrine_server.protocol import Failed, StepResult, encode


async def test_results_come_in_order_until_a_shard_fails(tmp_path: Path) -> None:
    """A failure reaches the task that waits for a result; the first counts, and every later wait raises it."""
    group = ShardGroup(tmp_path / "group")
    for number in range(2):
        group._deliver(0, encode(StepResult(number, b"", b"", b"")))
    assert [(await group.receive()).id for _ in range(2)] == [0, 1]
    waiting = asyncio.create_task(group.receive())
    await asyncio.sleep(0)
    group._deliver(0, encode(Failed(0, "out of memory")))
    with pytest.raises(ShardError, match="out of memory"):
        await waiting
    group._deliver(1, b"no message")
    with pytest.raises(ShardError, match="out of memory"):
        await group.receive()
    await group.stop()


async def test_a_message_that_cannot_be_read_names_its_shard(tmp_path: Path) -> None:
    """Router and shard of two versions fail with a line that says so."""
    group = ShardGroup(tmp_path / "group")
    group._deliver(1, b"no message")
    with pytest.raises(ShardError, match="shard 1 sent an unknown message"):
        await group.receive()
    await group.stop()
