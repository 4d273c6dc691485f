"""A shard on another machine than the router's: it joins over TCP, then works as `worker` does."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from peregrine_server.machines.curve_keys import REFUSED_EVENTS, CurveKeys
from peregrine_server.machines.messages import (
    Beat,
    Join,
    ModelSource,
    Refused,
    Welcome,
    config_sha256,
    decode_answer,
)
from peregrine_server.parent import BEAT_SECONDS
from peregrine_server.protocol import MAX_MESSAGE_BYTES, ShardConfig, encode
from peregrine_server.worker import LINGER_MILLISECONDS, Link, failed, serve

WAIT_SECONDS = 10
"""Interval at which the operator is told that the shard waits."""
PING_MILLISECONDS = 1000
"""Interval of ZeroMQ's own signs of life, by which a cut network is noticed."""

FindModel = Callable[[ModelSource], Path]


class JoinError(ValueError):
    """The router refuses this shard; the message is one line."""


class RemoteWorker:
    """A shard's process and its connections to the router, which it does not outlive."""

    def __init__(self, endpoint: str, keys: CurveKeys, timeout: float) -> None:
        """Connects to the router as soon as it is there. `timeout`: seconds of a silent network until it ends."""
        self._endpoint = endpoint
        self._keys = keys
        self._timeout = timeout
        self._context = zmq.Context()
        self._socket = self._dealer()
        self._is_leaving = False
        monitor = self._socket.get_monitor_socket()
        threading.Thread(target=self._watch, args=(monitor,), daemon=True, name="router-watch").start()
        self._socket.connect(endpoint)

    def run(self, join: Join, find_model: FindModel, adapt: Callable[[ShardConfig], ShardConfig]) -> int:
        """Joins, loads, and answers steps until a `Shutdown`. Returns an exit code.

        `find_model`: the folder of the router's model on this machine. `adapt`: sets what is this machine's own.
        Raises JoinError.
        """
        threading.Thread(target=self._beat, args=(join.rank,), daemon=True, name="beat").start()
        welcome = self._join(join)
        link = Link(self._context, self._socket)
        try:
            path = find_model(welcome.model)
            if config_sha256(path) != welcome.model.config_sha256:
                raise ValueError(f"the config.json of {path} is not the router's: give both the same files")
            serve(adapt(msgspec.structs.replace(welcome.config, model_path=str(path))), link)
        except Exception as error:
            message = failed(join.rank, error, f"shard {join.rank} at {join.address}: ")
            link.send(message)
            _say(message.message)
            return 1
        finally:
            self._is_leaving = True
            link.close()
        return 0

    def _join(self, join: Join) -> Welcome:
        self._socket.send(encode(join))
        since = time.monotonic()
        while not self._socket.poll(WAIT_SECONDS * 1000):
            seconds = time.monotonic() - since
            _say(f"shard {join.rank} has waited {seconds:.0f} s for {self._endpoint} and the other shards")
        answer: Welcome | Refused = decode_answer(self._socket.recv())
        if isinstance(answer, Refused):
            self._is_leaving = True
            raise JoinError(f"the router at {self._endpoint} refuses this shard: {answer.reason}")
        return answer

    def _dealer(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.LINGER, LINGER_MILLISECONDS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, PING_MILLISECONDS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(self._timeout * 1000))
        socket.curve_serverkey = self._keys.router.public.encode()
        socket.curve_publickey = self._keys.shard.public.encode()
        socket.curve_secretkey = self._keys.shard.secret.encode()
        return socket

    def _beat(self, rank: int) -> None:
        socket = self._dealer()
        socket.connect(self._endpoint)
        while True:
            socket.send(encode(Beat(rank)))
            time.sleep(BEAT_SECONDS)

    def _watch(self, monitor: "zmq.Socket[bytes]") -> None:
        """Ends the process with the connection, also while it waits in a collective for a rank that is gone."""
        while True:
            event = parse_monitor_message(monitor.recv_multipart())["event"]
            if self._is_leaving:
                return
            if event == zmq.EVENT_DISCONNECTED:
                _end(f"the router at {self._endpoint} is gone, or the network to it")
            if event in REFUSED_EVENTS:
                _end(f"the router at {self._endpoint} has other keys: give both the same --shard-keys")


def _say(line: str) -> None:
    print(f"peregrine shard: {line}", file=sys.stderr, flush=True)


def _end(reason: str) -> NoReturn:
    _say(reason)
    os._exit(1)
