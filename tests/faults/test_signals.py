"""Signals to the server: at its start, while it is idle, and while it streams."""

import contextlib
import json
import signal
import socket
import time
from pathlib import Path

import pytest

from ends import EndingServer
from serving import wait_until

pytestmark = pytest.mark.slow
COSTLY = {"properties": {f"p{number}": {"pattern": f"a.{{{number}}}b"} for number in range(600)}}
"""A schema that takes long to compile."""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_an_idle_server(number: signal.Signals, tmp_path: Path) -> None:
    """Exit code 0, one line, nothing left."""
    with EndingServer(tmp_path) as server:
        outcome = server.end(server.send(number), f"{number.name}, idle")
    assert (outcome.code, outcome.left) == (0, [])
    assert outcome.lines == ["peregrine: stopping after the running requests; once more to stop now"]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", ["shard", "weights"])
def test_a_signal_ends_a_starting_server(number: signal.Signals, moment: str, tmp_path: Path) -> None:
    """When the shard has just been spawned, and when it reports its weights: 128 + its number, one line."""
    with EndingServer(tmp_path, wait=False) as server:
        if moment == "shard":
            assert wait_until(lambda: len(server.shard_pids()) == 1, 30)
        else:
            assert wait_until(lambda: "weights:  " in server.said, 30)
        outcome = server.end(server.send(number), f"{number.name}, start, {moment}")
    assert (outcome.code, outcome.left) == (128 + number, [])
    assert (
        outcome.lines
        == [
            "peregrine 0.1.0: loading peregrine/falcon-demo",
            f"peregrine: stopped by {number.name} before it was ready",
        ][1:]
    )


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(seconds: float, tmp_path: Path) -> None:
    """Before Python runs the signal itself ends it; afterwards the server does."""
    with EndingServer(tmp_path, wait=False) as server:
        time.sleep(seconds)
        outcome = server.end(server.send(signal.SIGTERM), f"SIGTERM {seconds} s after the start")
    assert outcome.code in (-signal.SIGTERM, 128 + signal.SIGTERM, 0)
    assert outcome.left == []
    assert len(outcome.lines) <= 1


def test_two_signals_at_the_start_leave_nothing(tmp_path: Path) -> None:
    """The second does not cancel the clean-up after the first."""
    with EndingServer(tmp_path, wait=False) as server:
        assert wait_until(lambda: len(server.shard_pids()) == 1, 30)
        outcome = server.end(lambda: [server.send(signal.SIGTERM)() for _ in range(5)], "5 SIGTERMs, start")
    assert (outcome.code, outcome.left) == (128 + signal.SIGTERM, [])


def test_running_requests_have_time_to_finish(tmp_path: Path) -> None:
    """Streams that end within the grace period are whole."""
    with EndingServer(tmp_path) as server:
        server.open_streams(4, max_new_tokens=100)
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM, streams that end in time")
    assert (outcome.code, outcome.left) == (0, [])
    assert outcome.clients == ["whole"] * 4


def test_streams_end_with_an_error_when_their_time_is_over(tmp_path: Path) -> None:
    """Every stream has a last event that says so; one line has their number, and the exit code tells of it."""
    with EndingServer(tmp_path, "--graceful-termination-timeout", "1") as server:
        server.open_streams(40)
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM, grace period over")
    assert (outcome.code, outcome.left) == (3, [])
    assert outcome.clients == ["stopping"] * 40
    assert outcome.seconds < 10
    assert outcome.lines == [
        "peregrine: stopping after the running requests; once more to stop now",
        "peregrine: the time to finish is over; the server has ended, and 40 running requests with it",
    ]
    assert "request_log: failed" not in server.said


def test_a_second_signal_ends_streams_at_once(tmp_path: Path) -> None:
    """They have their error event all the same."""

    def twice() -> None:
        server.process.send_signal(signal.SIGINT)
        assert wait_until(lambda: "once more to stop now" in server.said, 10)
        server.process.send_signal(signal.SIGINT)

    with EndingServer(tmp_path) as server:
        server.open_streams(4)
        outcome = server.end(twice, "SIGINT twice, streaming")
    assert (outcome.code, outcome.left) == (3, [])
    assert outcome.clients == ["stopping"] * 4
    assert outcome.seconds < 10


def test_a_client_that_does_not_read_does_not_keep_the_server(tmp_path: Path) -> None:
    """Nor does one whose body never ends, or whose grammars compile: their connections are closed soon after the grace
    period."""
    costly = json.dumps({"inputs": "a", "parameters": {"grammar": {"type": "json", "value": COSTLY}}}).encode()
    sent = [
        (b"/generate", b"{", 1000),
        (b"/tokenize", tokenized := json.dumps({"inputs": "a b " * 2**16}).encode(), len(tokenized)),
        *[(b"/generate", costly, len(costly))] * 4,
    ]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EndingServer(tmp_path, "--graceful-termination-timeout", "0"))
        for path, body, length in sent:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % path)
            client.sendall(b"content-length: %d\r\n\r\n%b" % (length, body))
        time.sleep(0.5)
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM, endless body, unread answer, 4 grammars")
    assert (outcome.code, outcome.left) == (3, [])
    assert outcome.seconds < 15
    assert "Traceback" not in server.said


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """`nohup` starts the server so that it outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = EndingServer(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    with server:
        server.process.send_signal(signal.SIGHUP)
        assert server.generate("once", max_new_tokens=1).status_code == 200
        assert server.end(server.send(signal.SIGTERM), "SIGHUP under nohup, then SIGTERM").code == 0
