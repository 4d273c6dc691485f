"""The router's end of the ZeroMQ link to one shard."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import zmq

from peregrine_server.protocol import MAX_MESSAGE_BYTES

_READABLE = int(zmq.POLLIN)
"""zmq.POLLIN as a plain int: `&` of its flag type costs more than asking the socket."""


class ShardLink:
    """A socket that the event loop watches directly: a step of one stream costs the router a quarter less than with
    zmq.asyncio, whose futures and timers take turns of the loop of their own."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", path: Path, deliver: Callable[[bytes], None]) -> None:
        """Binds `path`. `deliver`: called with each message, in the running loop; it must not raise."""
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{path}")
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._file = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._file, self._receive)

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
            self._socket.close()

    def _receive(self) -> None:
        while not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE:
            self._deliver(self._socket.recv(zmq.NOBLOCK))
