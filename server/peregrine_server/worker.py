"""A shard process: receives Steps, executes them, sends the tokens. Its ShardConfig comes from the router on stdin."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from peregrine_server.execution.memory_budget import OutOfMemory
from peregrine_server.parent import beat, leave, leave_with_parent, read_line
from peregrine_server.protocol import (
    MAX_MESSAGE_BYTES,
    Failed,
    FromShard,
    Loading,
    ShardConfig,
    Shutdown,
    ToShard,
    decode_to_shard,
    encode,
)

if TYPE_CHECKING:
    from peregrine_server.execution.pending_step import PendingStep
    from peregrine_server.execution.runner import Runner

PROGRESS_SECONDS = 0.1
"""Minimum interval between `Loading` messages."""
LINGER_MILLISECONDS = 1000
"""Time that a shard's last messages have to reach the router."""
POLL_SECONDS = 1e-4
"""Interval at which the socket and the running step are polled; a decode of a 7B model takes 3.6 ms on an H200."""


def main() -> None:
    """Runs a shard from start to shutdown. Exits with 1 after a `Failed` message if it cannot go on.

    The one argument is the folder of the sockets: the router may be gone before its configuration is here.
    """
    folder = Path(sys.argv[1])
    line = read_line(0)
    if not line.endswith(b"\n"):
        leave(folder)  # The router has ended.
    config = msgspec.json.decode(line, type=ShardConfig)
    leave_with_parent(0, folder)
    beat(1)
    link = Link.connect(config.socket_path)
    try:
        serve(config, link)
    except Exception as error:
        link.send(failed(config.rank, error))
        raise SystemExit(1) from (error if "PEREGRINE_DEBUG" in os.environ else None)
    finally:
        link.close()


def serve(config: ShardConfig, link: "Link") -> None:
    """Loads the model, reports `Ready`, then answers steps until a `Shutdown`."""
    # Torch takes seconds to import. By then the link is up and the parent is watched.
    from peregrine_server.execution.runner import Runner

    runner = Runner.load(config, link.progress(config.rank))
    link.send(runner.ready)
    run_steps(runner, config.rank, link)


def run_steps(runner: "Runner", rank: int, link: "Link") -> None:
    """Answers steps until a `Shutdown`. All ranks sample the same tokens, so rank 0 alone sends them."""

    def answer(step: "PendingStep") -> None:
        if rank == 0:
            link.send(step.result())

    running: PendingStep | None = None
    while not isinstance(message := link.receive() if running is None else _message_or_end(link, running), Shutdown):
        if running is not None and message is not None and runner.waits_in(message):
            answer(running)
            running = None
        # The next step, if it has arrived, is launched before the running one's tokens are waited for.
        launched = None if message is None else runner.launch(message)
        if running is not None:
            answer(running)
        running = launched
        if running is not None and running.is_done:
            answer(running)
            running = None


def _message_or_end(link: "Link", running: "PendingStep") -> ToShard | None:
    """The router's next message, or None once the running step is done.

    If the shard waited for the tokens alone, a step that arrives meanwhile would not be launched, and the device would
    be idle between the two.
    """
    while (message := link.poll()) is None and not running.is_done:
        time.sleep(POLL_SECONDS)
    return message


def failed(rank: int, error: Exception, place: str = "") -> Failed:
    """The message of a shard, at a `place` that its words begin with, that ends with an error."""
    return Failed(rank, place + describe(error), error.free_bytes if isinstance(error, OutOfMemory) else 0)


def describe(error: Exception) -> str:
    """One line for the operator: the error's first line, after its type unless it is a ValueError or an OSError."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


class Link:
    """The shard's end of the socket to the router. Messages are bounded and decoded to known types only."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", socket: "zmq.Socket[bytes]") -> None:
        self._context = context
        self._socket = socket

    @staticmethod
    def connect(path: str) -> "Link":
        """Connects to the Unix domain socket of the router at `path`."""
        context = zmq.Context()
        socket = context.socket(zmq.PAIR)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.LINGER, LINGER_MILLISECONDS)
        socket.connect(f"ipc://{path}")
        return Link(context, socket)

    def send(self, message: FromShard) -> None:
        """Queues a message; returns before it is delivered."""
        self._socket.send(encode(message))

    def receive(self) -> ToShard:
        """Waits for the router's next message. Raises ValueError if it is none."""
        try:
            message: ToShard = decode_to_shard(self._socket.recv())
        # msgspec raises others than DecodeError for a text that is no UTF-8, and for nesting without end.
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the router sent an unknown message ({error}): is its version the shard's?") from None
        return message

    def poll(self) -> ToShard | None:
        """The router's next message, or None if none has arrived."""
        return self.receive() if self._socket.poll(0) else None

    def progress(self, rank: int) -> "Progress":
        """A callback (loaded bytes, total bytes) that reports loading to the router."""
        return Progress(self, rank)

    def close(self) -> None:
        """Closes the socket; sends queued messages for up to a second (LINGER)."""
        self._socket.close()
        self._context.term()


class Progress:
    """Turns the loader's byte counts into `Loading` messages, at most one every PROGRESS_SECONDS and the last one."""

    def __init__(self, link: Link, rank: int) -> None:
        self._link = link
        self._rank = rank
        self._last = 0.0

    def __call__(self, loaded_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS or loaded_bytes == total_bytes:
            self._last = now
            self._link.send(Loading(self._rank, loaded_bytes, total_bytes))


if __name__ == "__main__":
    main()
