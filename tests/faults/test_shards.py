"""Shards that die, stop or hang, and routers that die before their shards."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ends import EndingServer, Outcome
from serving import is_alive, wait_until

pytestmark = pytest.mark.slow
HEALTH_SECONDS = 2.5
"""A beat is due 0.5 s after the last one; health is red within 2 s of that."""


def kill(server: EndingServer, number: int, shard: int = 0) -> Callable[[], object]:
    """Sends a signal to a shard."""
    return lambda: os.kill(server.shard_pids()[shard], number)


def name_of(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def assert_failed(outcome: Outcome, *words: str) -> None:
    """Exit code 1, one line, an error event on every stream, nothing left."""
    assert (outcome.code, outcome.left) == (1, [])
    assert set(outcome.clients) <= {"generation"}
    assert len(outcome.lines) == 1
    assert all(word in outcome.lines[0] for word in words)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_shard_that_dies_while_it_streams(number: signal.Signals, tmp_path: Path) -> None:
    """Every stream ends with an error event."""
    with EndingServer(tmp_path) as server:
        server.open_streams(8)
        outcome = server.end(kill(server, number), f"shard {number.name}, streaming")
    assert_failed(outcome, f"shard 0 was killed by signal {number}", "8 running requests with it")
    assert outcome.clients == ["generation"] * 8
    assert outcome.seconds < 10


def test_a_shard_that_dies_while_it_is_idle(tmp_path: Path) -> None:
    """The server ends before a request finds out."""
    with EndingServer(tmp_path) as server:
        outcome = server.end(kill(server, signal.SIGKILL), "shard SIGKILL, idle")
    assert_failed(outcome, "shard 0 was killed by signal 9")


def test_a_shard_that_dies_while_it_loads(tmp_path: Path) -> None:
    """The start ends with its reason."""
    with EndingServer(tmp_path, wait=False) as server:
        assert wait_until(lambda: len(server.shard_pids()) == 1, 30)
        outcome = server.end(kill(server, signal.SIGKILL), "shard SIGKILL, start")
    assert_failed(outcome, "shard 0 was killed by signal 9")


def test_one_of_two_shards_that_dies(tmp_path: Path) -> None:
    """The other one waits in a collective, and leaves with the router."""
    with EndingServer(tmp_path, "--num-shard", "2") as server:
        server.open_streams(2)
        outcome = server.end(kill(server, signal.SIGKILL, 1), "one of two shards SIGKILL, streaming")
    assert_failed(outcome, "shard ", "2 running requests with it")


@pytest.mark.alone
@pytest.mark.parametrize("num_streams", [0, 4])
def test_a_stopped_shard_is_noticed_and_given_up(num_streams: int, tmp_path: Path) -> None:
    """Health is red soon after the beat that did not come; after --shard-timeout the server ends."""
    with EndingServer(tmp_path, "--shard-timeout", "6") as server:
        server.open_streams(num_streams)
        (shard,) = server.shard_pids()

        def stop() -> None:
            os.kill(shard, signal.SIGSTOP)
            start = time.monotonic()
            assert wait_until(lambda: not server.is_healthy(), 5)
            seconds.append(time.monotonic() - start)

        seconds: list[float] = []
        outcome = server.end(stop, f"shard SIGSTOP, {num_streams} streams")
    assert_failed(outcome, "shard 0 showed no sign of life for 6 s", "--shard-timeout")
    assert outcome.clients == ["generation"] * num_streams
    assert seconds[0] < HEALTH_SECONDS + 0.5
    assert 6 <= outcome.seconds < 12


def test_a_shard_that_was_stopped_for_a_moment_goes_on(tmp_path: Path) -> None:
    """Health is green again, and the stream is whole."""
    with EndingServer(tmp_path) as server:
        server.open_streams(1, max_new_tokens=300)
        kill(server, signal.SIGSTOP)()
        assert wait_until(lambda: not server.is_healthy(), 5)
        kill(server, signal.SIGCONT)()
        assert wait_until(server.is_healthy, 10)
        assert server.end(server.send(signal.SIGTERM)).clients == ["whole"]


def test_a_router_that_was_stopped_blames_no_shard(tmp_path: Path) -> None:
    """Ctrl-Z and `fg`, or a machine that slept, take longer than --shard-timeout."""
    with EndingServer(tmp_path, "--shard-timeout", "2") as server:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        server.process.send_signal(signal.SIGCONT)
        assert wait_until(server.is_healthy, 10)
        time.sleep(2)
        assert server.generate("once", max_new_tokens=2).status_code == 200
        outcome = server.end(server.send(signal.SIGTERM), "router SIGSTOP for 5 s, SIGCONT, SIGTERM; --shard-timeout 2")
    assert (outcome.code, outcome.left) == (0, [])


@pytest.mark.parametrize("state", ["idle", "streaming", "two shards"])
def test_a_killed_router_leaves_no_shard_and_no_file(state: str, tmp_path: Path) -> None:
    """The shards notice that the router's end of a pipe is closed, and remove the sockets."""
    with EndingServer(tmp_path, "--num-shard", "2" if state == "two shards" else "1") as server:
        server.open_streams(0 if state == "idle" else 2)
        outcome = server.end(server.send(signal.SIGKILL), f"router SIGKILL, {state}")
    assert (outcome.code, outcome.left) == (-signal.SIGKILL, [])
    assert set(outcome.clients) <= {"cut"}


def test_a_killed_router_leaves_no_stopped_shard(tmp_path: Path) -> None:
    """The kernel wakes it, and it leaves."""
    with EndingServer(tmp_path) as server:
        kill(server, signal.SIGSTOP)()
        outcome = server.end(server.send(signal.SIGKILL), "router SIGKILL, shard stopped")
    assert outcome.left == []


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_a_router_that_is_killed_right_after_the_spawn_leaves_no_shard(seconds: float, tmp_path: Path) -> None:
    """Whatever the shard does then: it starts, imports, or loads."""
    with EndingServer(tmp_path, wait=False) as server:
        assert wait_until(lambda: len(server.shard_pids()) == 1, 30)
        time.sleep(seconds)
        outcome = server.end(server.send(signal.SIGKILL), f"router SIGKILL {seconds} s after the spawn")
    assert outcome.left == []


def test_a_shard_stopped_before_its_first_beat_is_given_up(tmp_path: Path) -> None:
    """A start does not hang; loading has ten times --shard-timeout."""
    with EndingServer(tmp_path, "--shard-timeout", "0.3", wait=False) as server:
        assert wait_until(lambda: any("peregrine_server" in name_of(pid) for pid in server.shard_pids()), 30)
        outcome = server.end(kill(server, signal.SIGSTOP), "shard SIGSTOP, start")
    assert_failed(outcome, "shard 0 showed no sign of life for 3 s")


def test_health_needs_no_working_shard(tmp_path: Path) -> None:
    """It answers at once while the shard is stopped, and requests wait for their error."""
    with EndingServer(tmp_path, "--shard-timeout", "5") as server:
        (shard,) = server.shard_pids()
        os.kill(shard, signal.SIGSTOP)
        start = time.monotonic()
        answer = httpx.post(f"http://127.0.0.1:{server.port}/generate", json={"inputs": "once"}, timeout=30)
        assert answer.status_code == 424
        assert time.monotonic() - start < 12
        assert server.process.wait(20) == 1
        assert not is_alive(shard)
