"""The shard processes: start, watch, stop, and the messages between them and the router."""

import asyncio
import contextlib
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import zmq

from peregrine_router.shards.link import ShardLink
from peregrine_router.shards.machines import Machines, MachinesConfig
from peregrine_router.shards.remote_shard import RemoteShard
from peregrine_router.shards.shard_process import ShardProcess
from peregrine_router.shards.socket_folder import make_socket_folder
from peregrine_server.addresses import join_endpoint, listen
from peregrine_server.protocol import (
    MAX_MESSAGE_BYTES,
    Failed,
    Loading,
    Ready,
    ShardConfig,
    Shutdown,
    Step,
    StepResult,
    decode_from_shard,
    encode,
)

SHUTDOWN_SECONDS = 5.0
"""Seconds that a shard gets to exit before it is killed."""
KILL_SECONDS = 5.0
"""Seconds that a killed shard gets to be gone: one that waits in a driver for ever is not waited for."""

LOST_SECONDS = 1.0
"""Seconds until the loss of a shard's connection counts."""
FAILED_SECONDS = 0.1
"""Seconds until a shard's `Failed` counts: if it follows from the death of another, that is the reason to tell."""
MAX_UNREAD = 1024
"""Messages of loading shards that may wait to be read: ten minutes of them."""
MAX_REASON_CHARACTERS = 1000
"""Length of a shard's own words on why it failed."""

Progress = Callable[[Loading], None]


class ShardError(RuntimeError):
    """A shard failed or died; the message is one line for the operator."""

    def __init__(self, message: str, free_bytes: int = 0) -> None:
        """`free_bytes`: see `Failed`."""
        super().__init__(message)
        self.free_bytes = free_bytes


class ShardGroup:
    """One process per rank. `start` spawns them, `wait_ready` waits for their weights, `stop` leaves none behind."""

    def __init__(self, directory: Path, shard_timeout: float = math.inf) -> None:
        """`shard_timeout`: seconds without a shard's sign of life after which it is given up."""
        self._directory = directory
        self._shard_timeout = shard_timeout
        self._context = zmq.Context()
        self._machines: Machines | None = None
        self._links: list[ShardLink | RemoteShard] = []
        self._shards: list[ShardProcess | RemoteShard] = []
        self._inbox: asyncio.Queue[Loading | Ready | StepResult | ShardError] = asyncio.Queue()
        self._are_ready = False
        self._num_unanswered = 0
        """Steps that were sent and not answered."""
        self._is_stopping = False
        self._on_failure: Callable[[], object] = lambda: None
        self.failure: ShardError | None = None

    @classmethod
    async def start(
        cls, config: ShardConfig, shard_timeout: float, machines: MachinesConfig | None = None
    ) -> "ShardGroup":
        """Spawns `config.num_shards` processes, or with `machines` those of this machine, and waits for the others.

        Rank, socket and rendezvous of `config` are filled in here. `shard_timeout`: see `__init__`.
        """
        group = cls(make_socket_folder(), shard_timeout)
        try:
            if machines is None:
                meeting = msgspec.structs.replace(config, rendezvous=str(group._directory / "rendezvous"))
                for rank in range(config.num_shards):
                    await group._spawn(meeting, rank)
            else:
                await group._gather(config, machines)
        except BaseException:
            await group.stop()
            raise
        return group

    async def wait_ready(self, progress: Progress = lambda _: None) -> list[Ready]:
        """Waits until all shards have their weights; their `Ready` by rank. Raises ShardError as soon as one fails."""
        ready: dict[int, Ready] = {}
        while len(ready) < len(self._shards):
            message = await self._next()
            if isinstance(message, Loading):
                progress(message)
            elif isinstance(message, Ready):
                ready[message.rank] = message
        self._are_ready = True
        for shard in self._shards:
            shard.signs.is_loading = False
        return [ready[rank] for rank in sorted(ready)]

    async def send(self, step: Step) -> None:
        """Sends the same bytes to every shard. Raises the ShardError that is known; of a shard that takes none and of
        which no more is known yet, `receive` raises it."""
        if self.failure is not None:
            raise self.failure
        data = encode(step)
        self._num_unanswered += 1
        for rank, link in enumerate(self._links):
            if not link.send(data):
                self._lose(rank, f"shard {rank} does not take messages")

    async def receive(self) -> StepResult:
        """The result of the oldest step without one. Raises ShardError if any shard fails meanwhile."""
        while not isinstance(message := await self._next(), StepResult):
            pass
        return message

    @property
    def is_responsive(self) -> bool:
        """Whether every shard has shown a sign of life lately."""
        return all(shard.signs.is_responsive for shard in self._shards)

    @property
    def has_result(self) -> bool:
        """Whether `receive` would return at once."""
        return not self._inbox.empty()

    def give_up(self, reason: str, free_bytes: int = 0) -> None:
        """Ends the waits for results with a ShardError. Only the first reason counts: others follow from it."""
        if not self._is_stopping:
            self.failure = self.failure or ShardError(reason, free_bytes)
            self._inbox.put_nowait(self.failure)
            self._on_failure()

    def on_failure(self, call: Callable[[], object]) -> None:
        """Has `call` called whenever a shard is given up."""
        self._on_failure = call

    async def stop(self) -> None:
        """Asks the shards to leave, kills those that do not, removes the sockets. While they load, or after a failure,
        they are killed at once."""
        self._is_stopping = True
        waits = [asyncio.create_task(shard.ended()) for shard in self._shards]
        if self._are_ready and self.failure is None and waits:
            for link in self._links:
                link.send(encode(Shutdown()))
            await asyncio.wait(waits, timeout=SHUTDOWN_SECONDS)
        for shard in self._shards:
            shard.kill()
        if waits:
            await asyncio.wait(waits, timeout=KILL_SECONDS)
        await asyncio.gather(*(shard.close() for shard in self._shards))
        for link in self._links:
            if isinstance(link, ShardLink):
                link.close()
        if self._machines is not None:
            self._machines.close()
        # Not `term`, which would wait for a socket that failed to bind and is not in the list.
        self._context.destroy(linger=0)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _spawn(self, config: ShardConfig, rank: int) -> None:
        path = self._directory / f"shard-{rank}.sock"
        lost = f"shard {rank} lost its connection: did it send more than {MAX_MESSAGE_BYTES} bytes?"
        lose = partial(self._lose, rank, lost)
        self._links.append(ShardLink(self._context, path, partial(self._deliver, rank), lose))
        mine = msgspec.structs.replace(config, rank=rank, socket_path=str(path))
        self._shards.append(await ShardProcess.spawn(mine, self._shard_timeout, self.give_up))

    async def _gather(self, config: ShardConfig, machines: MachinesConfig) -> None:
        """Waits for the shards of other machines, then starts this machine's: all of them meet at rank 0's store."""
        self._machines = Machines(machines, self._shard_timeout, self.give_up)
        remote = await self._machines.gather(range(machines.num_local, config.num_shards), config.num_shards)
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(listen(machines.address)) if machines.num_local else None
            address, port = (remote[0].address, remote[0].store_port) if store is None else store.getsockname()[:2]
            meeting = msgspec.structs.replace(
                config, rendezvous=join_endpoint(address, port), interface=machines.interface
            )
            for rank in range(machines.num_local):
                descriptor = store.fileno() if store is not None and rank == 0 else None
                await self._spawn(msgspec.structs.replace(meeting, store_fd=descriptor, device_index=rank), rank)
        self._machines.welcome(meeting, self._deliver)
        self._links += remote
        self._shards += remote

    async def _next(self) -> Loading | Ready | StepResult:
        if self.failure is not None:
            raise self.failure
        message = await self._inbox.get()
        if self.failure is not None:
            raise self.failure
        assert not isinstance(message, ShardError)
        return message

    def _deliver(self, rank: int, data: bytes) -> None:
        if self.failure is not None:
            return
        try:
            message = decode_from_shard(data)
        # msgspec raises others than DecodeError for a text that is no UTF-8, and for nesting without end.
        except (ValueError, RecursionError) as error:
            self.give_up(f"shard {rank} sent an unknown message ({error}): is its version the router's?")
            return
        if (0 if isinstance(message, StepResult) else message.rank) != rank:
            self.give_up(f"shard {rank} answered for another")
        elif isinstance(message, Failed):
            reason = message.message.strip().partition("\n")[0][:MAX_REASON_CHARACTERS] or f"shard {rank} failed"
            asyncio.get_running_loop().call_later(FAILED_SECONDS, self.give_up, reason, message.free_bytes)
        elif not self._is_due(message):
            self.give_up(f"shard {rank} sent a message out of turn ({type(message).__name__})")
        else:
            self._num_unanswered -= isinstance(message, StepResult)
            self._inbox.put_nowait(message)

    def _is_due(self, message: Loading | Ready | StepResult) -> bool:
        """Whether a message may come at this time: what nobody waits for would be kept for ever."""
        if isinstance(message, StepResult):
            return self._num_unanswered > 0
        return not self._are_ready and self._inbox.qsize() < MAX_UNREAD

    def _lose(self, rank: int, reason: str) -> None:
        """Gives up a shard that lives and has no connection; of one that has ended, its end says more."""
        asyncio.get_running_loop().call_later(LOST_SECONDS, self.give_up, reason)
