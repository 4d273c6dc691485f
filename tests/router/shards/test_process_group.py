"""Messages of the shard processes; tests/test_serve.py starts real ones."""

import asyncio
from pathlib import Path

import pytest

from peregrine_router.shards.process_group import SHARD_ENVIRONMENT, ShardError, ShardGroup, _environment
from peregrine_server.protocol import Failed, StepResult, encode
from runners import shard_config


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


def test_the_operators_own_variables_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard gets the variables that suit it, but for those that the operator has set."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    environment = _environment(shard_config(tmp_path, num_threads=3))
    assert environment["GOMP_SPINCOUNT"] == "7"
    assert environment["GLIBC_TUNABLES"] == SHARD_ENVIRONMENT["GLIBC_TUNABLES"]
    assert environment["OMP_NUM_THREADS"] == "3"
