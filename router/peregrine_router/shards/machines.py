"""The router's end of the connections of shards on other machines: one socket that listens for all of them."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from peregrine_router.shards.remote_shard import RemoteShard
from peregrine_server.addresses import join_endpoint
from peregrine_server.machines.curve_keys import REFUSED_EVENTS, CurveKeys
from peregrine_server.machines.messages import Beat, Join, ModelSource, Refused, Welcome, decode_join, our_version
from peregrine_server.protocol import MAX_MESSAGE_BYTES, ShardConfig, encode

REMIND_SECONDS = 10.0
"""Interval at which the operator is told which shards are missing, and at most that keys were wrong."""
SILENT_SECONDS = 1.0
"""Time without a beat after which a shard whose connection may be the one that was lost counts as lost."""
SUSPECT_SECONDS = 1.8
"""Time from the loss of a connection until that is decided: three beats."""
LINGER_MILLISECONDS = 1000
"""Time that the last messages have to leave once the socket is closed."""
_READABLE = int(zmq.POLLIN)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MachinesConfig:
    """Shards of several machines: where they join, and what they load."""

    address: str
    """IP address of this machine at which the router listens."""
    port: int
    interface: str
    """Network interface that has the address."""
    keys: CurveKeys
    num_local: int
    """Shards of this machine: ranks 0 to num_local - 1."""
    model: ModelSource


class Machines:
    """Listens for shards, admits those that are wanted, and passes messages on. Use in the running event loop."""

    def __init__(self, config: MachinesConfig, silence_limit: float, fail: Callable[[str], None]) -> None:
        """Raises OSError with one line. `silence_limit`, `fail`: see `RemoteShard`."""
        self._config = config
        self._silence_limit = silence_limit
        self._fail = fail
        self._shards: dict[bytes, RemoteShard] = {}
        self._deliver: Callable[[int, bytes], None] | None = None
        self._wanted: Collection[int] = ()
        self._num_shards = 0
        self._joined = asyncio.Event()
        self._context = zmq.Context()
        self._authenticator = _authenticator(self._context, config.keys)
        try:
            self._socket = _bind(self._context, config)
        except OSError:
            self._authenticator.stop()
            raise
        self._loop = asyncio.get_running_loop()
        self._told_of_keys = -REMIND_SECONDS
        self._monitor = self._socket.get_monitor_socket()
        self._loop.add_reader(int(self._socket.getsockopt(zmq.FD)), self._receive)
        self._loop.add_reader(int(self._monitor.getsockopt(zmq.FD)), self._observe)
        self._observe()

    async def gather(self, ranks: Collection[int], num_shards: int) -> list[RemoteShard]:
        """Waits until a shard of each of `ranks` has joined; by rank. Says which are missing."""
        self._wanted, self._num_shards = ranks, num_shards
        while missing := sorted(set(ranks) - {shard.rank for shard in self._shards.values()}):
            names = ", ".join(map(str, missing))
            endpoint = join_endpoint(self._config.address, self._config.port)
            log.info("waiting at %s for shards %s of %d", endpoint, names, num_shards)
            self._joined.clear()
            try:
                async with asyncio.timeout(REMIND_SECONDS):
                    await self._joined.wait()
            except TimeoutError:
                pass
        return sorted(self._shards.values(), key=lambda shard: shard.rank)

    def welcome(self, config: ShardConfig, deliver: Callable[[int, bytes], None]) -> None:
        """Sends every shard its configuration. `deliver`: called with the rank and each message from then on."""
        self._deliver = deliver
        for shard in self._shards.values():
            mine = msgspec.structs.replace(config, rank=shard.rank)
            shard.send(encode(Welcome(mine, self._config.model)))

    def close(self) -> None:
        """Closes the connections; the last messages have LINGER_MILLISECONDS to leave."""
        if not self._socket.closed:
            self._loop.remove_reader(int(self._socket.getsockopt(zmq.FD)))
            self._loop.remove_reader(int(self._monitor.getsockopt(zmq.FD)))
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close(LINGER_MILLISECONDS)
            self._authenticator.stop()
            self._context.term()

    def _receive(self) -> None:
        while not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE:
            identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            shard = self._shards.get(identity)
            if shard is None:
                self._greet(identity, frames[0] if frames else b"")
            elif self._deliver is not None and frames:
                self._deliver(shard.rank, frames[0])

    def _greet(self, identity: bytes, data: bytes) -> None:
        """A message of a connection that is no shard's yet: a shard joins, or shows a sign of life."""
        try:
            message = decode_join(data)
        except msgspec.DecodeError:
            message = Join(-1, 0, "unknown")
        if isinstance(message, Beat):
            for shard in self._shards.values():
                if shard.rank == message.rank:
                    shard.signs.beat()
        elif reason := self._reason_to_refuse(message):
            log.warning("a shard at %s is refused: %s", message.address or "another machine", reason)
            self._send(identity, encode(Refused(reason)))
        else:
            self._admit(identity, message)

    def _reason_to_refuse(self, join: Join) -> str | None:
        if join.version != our_version():
            return f"its version is {join.version}, the router's {our_version()}: install the same on both machines"
        if join.num_shards != self._num_shards:
            return f"it has --num-shard {join.num_shards}, the router {self._num_shards}"
        if join.rank not in self._wanted:
            return f"rank {join.rank} is the router's machine's own or none of {self._num_shards}: check --rank"
        if any(shard.rank == join.rank for shard in self._shards.values()):
            return f"another shard has joined as rank {join.rank} already: check --rank"
        return None

    def _admit(self, identity: bytes, join: Join) -> None:
        def send(data: bytes) -> bool:
            return self._send(identity, data)

        def fail(reason: str) -> None:
            self._lose(identity, reason)

        self._shards[identity] = RemoteShard(join.rank, join.address, join.store_port, send, self._silence_limit, fail)
        log.info("shard %d joined from %s", join.rank, join.address)
        self._joined.set()

    def _lose(self, identity: bytes, reason: str) -> None:
        """A shard is gone: of the group, that is the end; before all have joined, another may take its place."""
        if self._deliver is not None:
            self._fail(reason)
        elif shard := self._shards.pop(identity, None):
            log.warning("%s; waiting for another", reason)
            self._loop.create_task(shard.close())
            self._joined.set()

    def _send(self, identity: bytes, data: bytes) -> bool:
        """False if the connection is gone or takes no more."""
        try:
            self._socket.send_multipart([identity, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        # Any call may consume the file's signal for messages that have come.
        self._receive()
        return True

    def _observe(self) -> None:
        while not self._socket.closed and int(self._monitor.getsockopt(zmq.EVENTS)) & _READABLE:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self._loop.call_later(SUSPECT_SECONDS, self._lose_silent)
            elif event in REFUSED_EVENTS and self._loop.time() - self._told_of_keys >= REMIND_SECONDS:
                self._told_of_keys = self._loop.time()
                log.warning("a connection of a shard is refused: its keys are not those of --shard-keys")

    def _lose_silent(self) -> None:
        """A connection was lost, and ZeroMQ does not say whose: that of a shard that no longer beats."""
        for identity, shard in list(self._shards.items()):
            if shard.signs.silent_seconds >= SILENT_SECONDS:
                self._lose(identity, f"shard {shard.rank} at {shard.address} lost its connection")


def _authenticator(context: "zmq.Context[zmq.Socket[bytes]]", keys: CurveKeys) -> ThreadAuthenticator:
    """Admits the shards' key alone."""

    class Shards:
        def callback(self, domain: str, key: bytes) -> bool:
            return key.decode() == keys.shard.public

    quiet = logging.getLogger(f"{__name__}.zap")
    quiet.setLevel(logging.CRITICAL)
    authenticator = ThreadAuthenticator(context, log=quiet)
    authenticator.start()
    authenticator.configure_curve_callback(domain="*", credentials_provider=Shards())
    return authenticator


def _bind(context: "zmq.Context[zmq.Socket[bytes]]", config: MachinesConfig) -> "zmq.Socket[bytes]":
    endpoint = join_endpoint(config.address, config.port)
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.curve_server = True
    socket.curve_secretkey = config.keys.router.secret.encode()
    socket.curve_publickey = config.keys.router.public.encode()
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise OSError(f"cannot listen for shards at {endpoint} ({error.strerror}): check --shard-address") from None
    return socket
