"""The shard processes: start, watch, stop, and the messages between them and the router."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import zmq

from peregrine_router.shards.link import ShardLink
from peregrine_server.protocol import (
    Failed,
    FromShard,
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

SHARD_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "GOMP_SPINCOUNT": "5000",
}
"""Environment variables of a shard that the operator has not set.

GLIBC_TUNABLES: malloc asks for huge pages. A step reads every weight, which takes 3 to 10 % less time with fewer page
tables (2 cores, 1.15 B model, bfloat16).
GOMP_SPINCOUNT: rounds for which an OpenMP thread spins before it sleeps, 300,000 by default. One that spins while the
other waits for a core keeps it waiting (docs/decisions/0035).
"""

Progress = Callable[[Loading], None]


class ShardError(RuntimeError):
    """A shard failed or died; the message is one line for the operator."""


class ShardGroup:
    """One process per rank. `start` spawns them, `wait_ready` waits for their weights, `stop` leaves none behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._context = zmq.Context()
        self._links: list[ShardLink] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._inbox: asyncio.Queue[FromShard | ShardError] = asyncio.Queue()
        self._are_ready = False
        self._is_stopping = False
        self.failure: ShardError | None = None

    @classmethod
    async def start(cls, config: ShardConfig) -> "ShardGroup":
        """Spawns `config.num_shards` processes; rank, socket and rendezvous of `config` are filled in here."""
        # mkdtemp makes the folder 0700: nobody else reaches the sockets in it.
        group = cls(Path(tempfile.mkdtemp(prefix="peregrine-")))
        try:
            for rank in range(config.num_shards):
                await group._spawn(config, rank)
        except BaseException:
            await group.stop()
            raise
        return group

    async def wait_ready(self, progress: Progress = lambda _: None) -> list[Ready]:
        """Waits until all shards have their weights; their `Ready` by rank. Raises ShardError as soon as one fails."""
        ready: dict[int, Ready] = {}
        while len(ready) < len(self._processes):
            message = await self._next()
            if isinstance(message, Loading):
                progress(message)
            elif isinstance(message, Ready):
                ready[message.rank] = message
        self._are_ready = True
        return [ready[rank] for rank in sorted(ready)]

    async def send(self, step: Step) -> None:
        """Sends the same bytes to every shard. Raises ShardError if one is gone."""
        data = encode(step)
        for rank, link in enumerate(self._links):
            if not link.send(data):
                raise self.failure or ShardError(f"shard {rank} does not take messages")

    async def receive(self) -> StepResult:
        """The result of the oldest step without one. Raises ShardError if any shard fails meanwhile."""
        while not isinstance(message := await self._next(), StepResult):
            pass
        return message

    async def stop(self) -> None:
        """Asks the shards to leave, kills those that do not, removes the sockets. Loading shards are killed at once."""
        self._is_stopping = True
        waits = [asyncio.create_task(process.wait()) for process in self._processes]
        if self._are_ready and waits:
            for link in self._links:
                link.send(encode(Shutdown()))
            await asyncio.wait(waits, timeout=SHUTDOWN_SECONDS)
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*waits)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            link.close()
        self._context.term()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _spawn(self, config: ShardConfig, rank: int) -> None:
        path = self._directory / f"shard-{rank}.sock"
        self._links.append(ShardLink(self._context, path, partial(self._deliver, rank)))
        mine = msgspec.structs.replace(
            config, rank=rank, socket_path=str(path), rendezvous=str(self._directory / "rendezvous")
        )
        # A session of its own: Ctrl-C reaches the router alone, which then stops the shards in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "peregrine_server.worker",
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_environment(config),
        )
        self._processes.append(process)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(mine))
        process.stdin.close()
        self._tasks.append(asyncio.create_task(self._watch(rank, process)))

    async def _next(self) -> FromShard:
        if self.failure is not None:
            raise self.failure
        message = await self._inbox.get()
        if isinstance(message, Failed):
            self.failure = self.failure or ShardError(message.message)
        if self.failure is not None:
            raise self.failure
        assert not isinstance(message, ShardError)
        return message

    def _deliver(self, rank: int, data: bytes) -> None:
        try:
            self._inbox.put_nowait(decode_from_shard(data))
        except msgspec.DecodeError as error:
            self._fail(ShardError(f"shard {rank} sent an unknown message ({error}): is its version the router's?"))

    async def _watch(self, rank: int, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._is_stopping:
            # A `Failed` message may still be on the way; it says more than an exit code.
            await asyncio.sleep(0.2)
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            hint = ": out of memory? Lower --max-batch-total-tokens" if code == -9 else ""
            self._fail(ShardError(f"shard {rank} {how}{hint}"))

    def _fail(self, error: ShardError) -> None:
        """Records a failure, and wakes the task that waits for a message. Only the first counts: others follow."""
        self.failure = self.failure or error
        self._inbox.put_nowait(self.failure)


def _environment(config: ShardConfig) -> dict[str, str]:
    """The router's environment over `SHARD_ENVIRONMENT`, plus the shard's number of OpenMP threads."""
    return {**SHARD_ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": str(config.num_threads)}
