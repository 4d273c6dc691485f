"""The router's end of the ZeroMQ link to one shard."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import zmq

from peregrine_server.protocol import MAX_MESSAGE_BYTES

_READABLE = int(zmq.POLLIN)
"""A plain number: `&` of flags costs more than the socket's answer."""


class ShardLink:
    """A socket that the loop watches itself: a step of one stream costs the router a quarter less than with
    zmq.asyncio, whose futures and timers take turns of the loop of their own."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", path: Path, deliver: Callable[[bytes], None]) -> None:
        """Binds `path`; `deliver` is called with each message, within the running loop, and does not raise."""
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{path}")
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._file = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._file, self._receive)

    def send(self, data: bytes) -> bool:
        """Whether the message is on its way: not if there is no shard, which a PAIR socket would wait for."""
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        # Any call may take note of what came, of which the file then tells no more.
        self._receive()
        return True

    def close(self) -> None:
        """Nothing is delivered any more."""
        if not self._socket.closed:
            self._loop.remove_reader(self._file)
            self._socket.close()

    def _receive(self) -> None:
        while not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE:
            self._deliver(self._socket.recv(zmq.NOBLOCK))
