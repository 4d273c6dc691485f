"""Server-sent events: one JSON object an event, keep-alive comments, an error event instead of a silent end."""

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Protocol

import msgspec
from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus, SendTimeoutError
from starlette.types import Receive, Scope, Send

from peregrine_router.api.errors import INTERNAL, STREAM_KINDS, Kind, kind_of
from peregrine_router.api.run import Run
from peregrine_router.request import TokenEvent

KEEP_ALIVE_SECONDS = 15
"""TGI's."""
DONE = b"data: [DONE]\n\n"
"""The end of OpenAI's streams."""
log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class Describe(Protocol):
    """What a route makes of a run's events."""

    def event(self, number: int, event: TokenEvent) -> Iterable[object]:
        """The JSON objects to send for a token of sequence `number`."""

    def end(self) -> bytes:
        """What follows the last token, encoded."""

    def error(self, kind: Kind, message: str) -> object:
        """The JSON object that ends a stream that fails."""


def let_streams_finish() -> None:
    """By default sse-starlette cuts every stream of the process at SIGTERM; running requests are to finish instead."""
    AppStatus.enable_automatic_graceful_drain = False


def encode_event(body: object) -> bytes:
    """One event. JSON holds no raw line break, so it is a single line."""
    return b"data: " + _encode(body) + b"\n\n"


class RunResponse(EventSourceResponse):
    """Streams a run's events. Closes the run in every case."""

    def __init__(self, run: Run, describe: Describe, headers: Mapping[str, str], send_timeout: float) -> None:
        self._run = run
        super().__init__(
            self._encoded(describe),
            headers={"Cache-Control": "no-cache", **headers},
            ping=KEEP_ALIVE_SECONDS,
            send_timeout=send_timeout,
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

    async def _encoded(self, describe: Describe) -> AsyncGenerator[bytes, None]:
        try:
            async with contextlib.aclosing(self._run.events()) as events:
                async for number, event in events:
                    for body in describe.event(number, event):
                        yield encode_event(body)
            if ending := describe.end():
                yield ending
        except Exception as error:
            await self._run.close(error)
            kind = kind_of(error, STREAM_KINDS)
            if kind is INTERNAL:
                log.exception("a stream failed")
            yield encode_event(describe.error(kind, str(error)))
