"""`peregrine` with a timer on its event loop: python timed_serve.py FILE serve [options].

`python timed_serve.py FILE` is a process with the timer and nothing else: it is as late as the machine makes it. Every
10 ms the file gets two doubles: when the timer fired (`time.monotonic()`), and how many seconds too late.
"""

import asyncio
import struct
import sys
import time
from typing import IO, Any

import uvloop

from peregrine_router.cli import main
from peregrine_router.launch import serve
from peregrine_router.launch.server import Server

TICK_SECONDS = 0.01


async def record(file: IO[bytes]) -> None:
    """Records the timer until the server ends."""
    while True:
        due = time.monotonic() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        now = time.monotonic()
        file.write(struct.pack("dd", now, now - due))


class TimedServer(Server):
    """The server with the timer beside it."""

    path = ""

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        """Starts the timer with the server."""
        await super().startup(*args, **kwargs)
        self.timer = asyncio.create_task(record(open(self.path, "ab", buffering=0)))  # noqa: SIM115, ASYNC230


if __name__ == "__main__":
    TimedServer.path = sys.argv.pop(1)
    if len(sys.argv) == 1:
        uvloop.run(record(open(TimedServer.path, "ab", buffering=0)))  # noqa: SIM115
    serve.Server = TimedServer  # type: ignore[attr-defined]
    main()
