"""One shard's process: spawned, watched, and ended."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from peregrine_router.shards.signs_of_life import SignsOfLife
from peregrine_server.protocol import ShardConfig

SHARD_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1",
    "GOMP_SPINCOUNT": "5000",
}
"""Environment variables of a shard that the operator has not set.

GLIBC_TUNABLES: malloc asks for huge pages. A step reads every weight, which takes 3 to 10 % less time with fewer page
tables (2 cores, 1.15 B model, bfloat16). One arena: those of further threads, which load weights, have small pages.
GOMP_SPINCOUNT: rounds for which an OpenMP thread spins before it sleeps, 300,000 by default. One that spins while the
other waits for a core keeps it waiting (docs/decisions/0035).
"""
EXITED_SECONDS = 0.3
"""Seconds until an exit counts."""
HINTS = {
    6: ": out of memory? Lower --max-batch-prefill-tokens or --max-batch-total-tokens",
    9: ": out of memory? Lower --max-batch-total-tokens",
}
"""Signal that killed a shard -> what to try."""


class ShardProcess:
    """A process that is alive as long as it beats: what else it does may take as long as a step."""

    def __init__(
        self, rank: int, process: asyncio.subprocess.Process, silence_limit: float, fail: Callable[[str], None]
    ) -> None:
        """`silence_limit`: seconds without a beat after which `fail` is called. `fail` is also called when the process
        ends."""
        self.process = process
        self.signs = SignsOfLife(rank, silence_limit, fail)
        self._rank = rank
        self._fail = fail
        works = (self._watch_end(), self._count_beats(), self.signs.watch(), self._relay_log())
        self._tasks = [asyncio.create_task(work) for work in works]

    @classmethod
    async def spawn(cls, config: ShardConfig, silence_limit: float, fail: Callable[[str], None]) -> "ShardProcess":
        """Starts the process of `config.rank`. See `__init__`."""
        pipe = asyncio.subprocess.PIPE
        # A session of its own: Ctrl-C reaches the router alone, which then stops the shards in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "peregrine_server.worker",
            str(Path(config.socket_path).parent),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            pass_fds=() if config.store_fd is None else (config.store_fd,),
            env=environment(config.num_threads),
        )
        assert process.stdin is not None
        # Left open: the shard ends when the router's end closes, however the router ends.
        with contextlib.suppress(OSError, RuntimeError):  # It has ended already; `_watch_end` tells how.
            process.stdin.write(msgspec.json.encode(config) + b"\n")
        return cls(config.rank, process, silence_limit, fail)

    async def ended(self) -> None:
        """Waits until the process has ended."""
        await self.process.wait()

    def kill(self) -> None:
        """Kills the process if it still runs."""
        if self.process.returncode is None:
            self.process.kill()

    async def close(self) -> None:
        """Ends the watch over a process that has ended."""
        watch, _, beats, _ = self._tasks
        watch.cancel()
        beats.cancel()
        assert self.process.stdin is not None
        self.process.stdin.close()
        # What it said last is still in the pipe; a process of its own may hold that open.
        await asyncio.wait(self._tasks, timeout=1.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch_end(self) -> None:
        code = await self.process.wait()
        if code >= 0:
            # Its `Failed` message, which says more, may still be on the way, or wait to count.
            await asyncio.sleep(EXITED_SECONDS)
        how = f"was killed by signal {-code}{HINTS.get(-code, '')}" if code < 0 else f"exited with code {code}"
        self._fail(f"shard {self._rank} {how}")

    async def _count_beats(self) -> None:
        assert self.process.stdout is not None
        while await self.process.stdout.read(4096):
            self.signs.beat()

    async def _relay_log(self) -> None:
        """Passes on what the shard writes to standard error, so that no reader of the log holds the shard."""
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(2**16):
            sys.stderr.write(data.decode(errors="replace"))


def environment(num_threads: int) -> dict[str, str]:
    """The router's environment over `SHARD_ENVIRONMENT`, plus the shard's number of OpenMP threads."""
    return {**SHARD_ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": str(num_threads)}
