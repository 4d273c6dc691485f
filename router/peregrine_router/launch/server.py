"""HTTP and the step loop, until one of them ends; then every request ends with an answer or an error."""

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from peregrine_router.engine.engine import Engine
from peregrine_router.launch.connections import connection_limits
from peregrine_router.launch.exit_codes import CUT_OFF, FAILED, STOPPED
from peregrine_router.launch.http_protocol import bounded_protocol
from peregrine_router.launch.listener import accepting, listen
from peregrine_router.request import ServerStopping
from peregrine_router.settings import Settings

DRAIN_SECONDS = 5.0
"""Time for writing the errors of requests that did not end by themselves; then their connections are closed."""
ABORT_SECONDS = 1.0
"""Time for the requests of closed connections to notice."""


class Server(uvicorn.Server):
    """uvicorn with an end of our own.

    uvicorn's signal handlers raise the signal again, which would cancel the clean-up of the shards; and at the end of
    the grace period it cancels the requests, each with a traceback, and streams without their last event.
    """

    def __init__(self, app: FastAPI, engine: Engine, settings: Settings, listener: socket.socket) -> None:
        """Listens from here on: connections wait until `run_until_stopped`."""
        super().__init__(_config(app, settings))
        listen(listener, self.config.backlog)
        self._engine = engine
        self._grace_seconds = settings.graceful_termination_timeout
        self._listener = listener
        self._stepping: asyncio.Task[None] | None = None
        self._must_stop_now = asyncio.Event()
        self._num_cut_off = 0

    async def run_until_stopped(self) -> int:
        """Runs HTTP and the step loop; when one ends, the other is ended. Returns the exit code."""
        self._stepping = asyncio.create_task(self._engine.run())
        self._stepping.add_done_callback(self._stop_after_failure)
        await self.serve(sockets=accepting(self._listener))
        if self._stepping.done():
            return FAILED
        self._stepping.cancel()
        await asyncio.gather(self._stepping, return_exceptions=True)
        return CUT_OFF if self._num_cut_off else STOPPED

    def request_stop(self) -> None:
        """Stops the server: after the first call running requests have their time, after the second none."""
        if not self.should_exit:
            say("peregrine: stopping after the running requests; once more to stop now")
            self.should_exit = True
        elif self._must_stop_now.is_set():
            self.force_exit = True
        else:
            self._must_stop_now.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing; `StopSignals` handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Excludes all objects made so far from garbage collection: a full pass over them would delay every stream."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the port, and ends all requests within their time and DRAIN_SECONDS."""
        ending = asyncio.create_task(self._end_requests())
        await super().shutdown(sockets)
        ending.cancel()
        if self.force_exit:
            await self._abort_connections()
            await self.lifespan.shutdown()

    def _stop_after_failure(self, stepping: asyncio.Task[None]) -> None:
        if not stepping.cancelled():
            say(f"peregrine: {stepping.exception()}; the server has ended{_with(len(self.server_state.tasks))}")
            self.should_exit = True
            self._must_stop_now.set()

    async def _end_requests(self) -> None:
        """Lets requests run for the grace period, ends them with an error, and closes the connections that are left."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._must_stop_now.wait(), self._grace_seconds)
        if self._stepping is not None and not self._stepping.done():
            self._num_cut_off = len(self.server_state.tasks)
            say(f"peregrine: the time to finish is over; the server has ended{_with(self._num_cut_off)}")
            self._engine.stop(ServerStopping("the server is stopping: send the request again, to another"))
        await asyncio.sleep(DRAIN_SECONDS)
        self.force_exit = True

    async def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # A request that notices nothing is cancelled with the event loop, and uvicorn would log a traceback of each.
        logging.getLogger("uvicorn.error").disabled = True
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=ABORT_SECONDS)


def _with(num_requests: int) -> str:
    return f", and {num_requests} running request{'s' * (num_requests > 1)} with it" if num_requests else ""


def say(text: str) -> None:
    """Prints lines for the operator."""
    print(text, file=sys.stderr)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration: our HTTP protocol, no access log, no log of its own, no end of its own."""
    return uvicorn.Config(
        app,
        http=bounded_protocol(connection_limits(settings), app.state.early_refusals),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=None,
        timeout_keep_alive=settings.keep_alive_timeout,
    )
