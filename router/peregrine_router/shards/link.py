"""The router's end of the ZeroMQ link to one shard."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import zmq

from peregrine_server.protocol import MAX_MESSAGE_BYTES

_READABLE = int(zmq.POLLIN)
"""zmq.POLLIN as a plain int: `&` of its flag type costs more than asking the socket."""

MAX_AT_ONCE = 256
"""Messages that are delivered in one turn of the event loop: a shard that sends without end does not hold it."""


class ShardLink:
    """A socket that the event loop watches directly: a step of one stream costs the router a quarter less than with
    zmq.asyncio, whose futures and timers take turns of the loop of their own."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        path: Path,
        deliver: Callable[[bytes], None],
        lose: Callable[[], object] = lambda: None,
    ) -> None:
        """Binds `path`. Raises OSError with one line.

        `deliver`: called with each message. `lose`: called when the connection is lost: the shard has ended, or ZeroMQ
        has refused what it sent, as it does with messages over MAX_MESSAGE_BYTES. Both are called in the running loop,
        and must not raise.
        """
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(f"ipc://{path}")
        except zmq.ZMQError as error:
            self._socket.close()
            raise OSError(f"no socket in {path.parent} ({error.strerror}): set TMPDIR to another folder") from None
        self._deliver = deliver
        self._lose = lose
        self._loop = asyncio.get_running_loop()
        self._file = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._file, self._receive)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._monitor_file = int(self._monitor.getsockopt(zmq.FD))
        self._loop.add_reader(self._monitor_file, self._observe)
        # The file signals a change only after its events were asked for.
        self._observe()

    def send(self, data: bytes) -> bool:
        """Sends a message. False if there is no shard to take it, for which a PAIR socket would wait."""
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        # Any call may consume the file's signal for messages that have come.
        self._receive()
        return True

    def close(self) -> None:
        """Closes the socket; nothing is delivered afterwards."""
        if not self._socket.closed:
            self._loop.remove_reader(self._file)
            self._loop.remove_reader(self._monitor_file)
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()

    def _receive(self) -> None:
        for _ in range(MAX_AT_ONCE):
            if self._socket.closed or not int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE:
                return
            self._deliver(self._socket.recv(zmq.NOBLOCK))
        # The file signals a change only after all messages were taken.
        self._loop.call_soon(self._receive)

    def _observe(self) -> None:
        while not self._socket.closed and int(self._monitor.getsockopt(zmq.EVENTS)) & _READABLE:
            self._monitor.recv_multipart(zmq.NOBLOCK)
            self._lose()
