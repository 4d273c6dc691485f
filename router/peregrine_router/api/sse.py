"""Server-sent events: one JSON object an event, keep-alive comments, an error event instead of a silent end."""

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping

import msgspec
from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus, SendTimeoutError
from starlette.types import Receive, Scope, Send

from peregrine_router.api.errors import INTERNAL, STREAM_KINDS, kind_of
from peregrine_router.api.run import Run
from peregrine_router.request import TokenEvent

SEND_TIMEOUT_SECONDS = 60.0
"""A client that takes nothing for this long while events wait is dropped."""
KEEP_ALIVE_SECONDS = 15
"""TGI's."""
log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


def let_streams_finish() -> None:
    """By default sse-starlette cuts every stream of the process at SIGTERM; running requests are to finish instead."""
    AppStatus.enable_automatic_graceful_drain = False


def encode_event(body: object) -> bytes:
    """One event. JSON holds no raw line break, so it is a single line."""
    return b"data: " + _encode(body) + b"\n\n"


class RunResponse(EventSourceResponse):
    """Streams a run's events, each as the JSON of what `describe` makes of it. Closes the run in every case."""

    def __init__(self, run: Run, describe: Callable[[TokenEvent], object], headers: Mapping[str, str]) -> None:
        self._run = run
        super().__init__(
            self._encoded(describe),
            headers={"Cache-Control": "no-cache", **headers},
            ping=KEEP_ALIVE_SECONDS,
            send_timeout=SEND_TIMEOUT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        try:
            # A client too slow is dropped as if it had left: its connection is of no use any more.
            with contextlib.suppress(SendTimeoutError):
                await super().__call__(scope, receive, send)
        finally:
            # Here and not in the generator: a generator that was never started has no clean-up.
            await self._run.close()

    async def _encoded(self, describe: Callable[[TokenEvent], object]) -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(self._run.events()) as events:
                async for event in events:
                    if event.finished is not None:
                        # Before the client sees the end: its next request may need this one's permit.
                        self._run.settle(event.finished)
                        await self._run.close()
                    yield encode_event(describe(event))
        except Exception as error:
            await self._run.close(error)
            kind = kind_of(error, STREAM_KINDS)
            if kind is INTERNAL:
                log.exception("a stream failed")
            yield encode_event(kind.body(str(error)))
