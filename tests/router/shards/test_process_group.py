"""Messages of the shard processes; tests/test_serve.py starts real ones."""

import asyncio
from pathlib import Path

import pytest

from peregrine_router.shards import process_group
from peregrine_router.shards.process_group import ShardError, ShardGroup
from peregrine_router.shards.remote_shard import RemoteShard
from peregrine_router.shards.shard_process import SHARD_ENVIRONMENT, environment
from peregrine_server.protocol import Failed, FromShard, Loading, Step, StepResult, encode


async def test_results_come_in_order_until_a_shard_fails(tmp_path: Path) -> None:
    """A failure reaches the task that waits for a result; the first counts, and every later wait raises it."""
    group = ShardGroup(tmp_path / "group")
    assert await group.wait_ready() == []
    for number in range(2):
        await group.send(Step(number))
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


NO_MESSAGES = {
    "no message": b"no message",
    "a text that is no UTF-8": encode(Failed(1, "no")).replace(b"no", b"\xff\xff"),
    "nesting without end": b"\x94\xa6failed\x01\xa2no" + b"\x91" * 100_000 + b"\xc0",
    "a list of four billion": b"\x99\xa6result\x01\xc4\x00\xc4\x00\xc4\x00\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("kind", NO_MESSAGES)
async def test_a_message_that_cannot_be_read_names_its_shard(kind: str, tmp_path: Path) -> None:
    """Router and shard of two versions fail with a line that says so, whatever msgspec raises."""
    group = ShardGroup(tmp_path / "group")
    group._deliver(1, NO_MESSAGES[kind])
    with pytest.raises(ShardError, match="shard 1 sent an unknown message"):
        await group.receive()
    await group.stop()


OUT_OF_TURN: dict[str, tuple[bool, FromShard]] = {
    "a result while it loads": (False, StepResult(1, b"", b"", b"")),
    "a result of no step": (True, StepResult(1, b"", b"", b"")),
    "progress once it is ready": (True, Loading(0, 1, 2)),
}


@pytest.mark.parametrize("kind", OUT_OF_TURN)
async def test_a_message_that_nobody_waits_for_ends_the_group(kind: str, tmp_path: Path) -> None:
    """Kept, such messages would fill the memory."""
    group = ShardGroup(tmp_path / "group")
    is_ready, message = OUT_OF_TURN[kind]
    if is_ready:
        await group.wait_ready()
    group._deliver(0, encode(message))
    with pytest.raises(ShardError, match="shard 0 sent a message out of turn"):
        await group.receive()
    await group.stop()


async def test_a_loading_shard_that_sends_without_end_ends_the_group(tmp_path: Path) -> None:
    """No more is kept than a limit."""
    group = ShardGroup(tmp_path / "group")
    for number in range(5000):
        group._deliver(0, encode(Loading(0, number, 5000)))
    assert group._inbox.qsize() <= process_group.MAX_UNREAD + 1
    with pytest.raises(ShardError, match="out of turn"):
        await group.receive()
    await group.stop()


async def test_a_shards_reason_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long, and if there is none."""
    monkeypatch.setattr(process_group, "FAILED_SECONDS", 0.0)
    for message, words in (
        ("a\nb", "a"),
        ("x" * 10_000, "x" * process_group.MAX_REASON_CHARACTERS),
        ("", "shard 0 failed"),
    ):
        group = ShardGroup(tmp_path / "group")
        group._deliver(0, encode(Failed(0, message)))
        with pytest.raises(ShardError, match=f"^{words}$"):
            await group.receive()
        await group.stop()


def test_the_operators_own_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard gets the variables that suit it, but for those that the operator has set."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    variables = environment(3)
    assert variables["GOMP_SPINCOUNT"] == "7"
    assert variables["GLIBC_TUNABLES"] == SHARD_ENVIRONMENT["GLIBC_TUNABLES"]
    assert variables["OMP_NUM_THREADS"] == "3"


async def test_a_lost_connection_ends_the_group_unless_the_shards_end_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the reason if the shard lives, and a consequence if it has died."""
    monkeypatch.setattr(process_group, "LOST_SECONDS", 0.05)
    for reasons, words in (([], "lost its connection"), (["shard 0 was killed"], "shard 0 was killed")):
        group = ShardGroup(tmp_path / "group")
        group._lose(0, "shard 0 lost its connection")
        for reason in reasons:
            group.give_up(reason)
        with pytest.raises(ShardError, match=words):
            await group.receive()
        await group.stop()


class ClosedLink(RemoteShard):
    """The link to a shard that is gone."""

    def __init__(self) -> None:
        """Has no connection."""

    def send(self, data: bytes) -> bool:
        """Takes nothing."""
        return False


async def test_a_step_that_a_shard_does_not_take_waits_for_the_shards_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of a shard that is killed may close before its end is known, which says more."""
    monkeypatch.setattr(process_group, "LOST_SECONDS", 0.05)
    for reasons, words in (([], "does not take messages"), (["shard 0 was killed"], "shard 0 was killed")):
        group = ShardGroup(tmp_path / "group")
        group._links.append(ClosedLink())
        await group.send(Step(0))
        for reason in reasons:
            group.give_up(reason)
        with pytest.raises(ShardError, match=words):
            await group.receive()
        with pytest.raises(ShardError, match=words):
            await group.send(Step(1))
        await group.stop()


async def test_a_shard_that_answers_for_another_ends_the_group(tmp_path: Path) -> None:
    """Only rank 0 answers steps, and each reports its own state."""
    for rank, message in ((1, StepResult(1, b"", b"", b"")), (0, Loading(1, 1, 2))):
        group = ShardGroup(tmp_path / "group")
        group._deliver(rank, encode(message))
        with pytest.raises(ShardError, match=f"shard {rank} answered for another"):
            await group.receive()
        await group.stop()
