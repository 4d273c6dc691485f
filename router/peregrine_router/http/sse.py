"""Server-sent events: one JSON object an event, keep-alive comments, an error event instead of a silent end."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from peregrine_router.http.disconnect import disconnected
from peregrine_router.http.errors import INTERNAL, STREAM_ERRORS, ErrorSpec, spec_of
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.request import TokenEvent

KEEP_ALIVE_SECONDS = 15.0
"""TGI's. After so long without an event comes a comment, which clients ignore."""
KEEP_ALIVE = b":\n\n"
DONE = b"data: [DONE]\n\n"
"""The end of OpenAI's streams."""
HEADERS = {"cache-control": "no-cache", "connection": "keep-alive", "x-accel-buffering": "no"}
log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class EventFormatter(Protocol):
    """What a route makes of a run's events."""

    def event(self, number: int, event: TokenEvent) -> object | None:
        """The JSON object to send for a token of sequence `number`, if any."""

    def end(self) -> bytes:
        """What follows the last token, encoded."""

    def error(self, kind: ErrorSpec, message: str) -> object:
        """The JSON object that ends a stream that fails."""


def encode_events(*bodies: object) -> bytes:
    """One event for each. JSON holds no raw line break, so it is a single line."""
    return b"data: %b\n\n" % b"\n\ndata: ".join(map(_encode, bodies))


class EventStreamResponse(Response):
    """Streams a run's events, in one write all that have come since the last. Closes the run in every case."""

    media_type = "text/event-stream"

    def __init__(
        self, lifecycle: RequestLifecycle, describe: EventFormatter, headers: Mapping[str, str], send_timeout: float
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **headers})
        self._lifecycle = lifecycle
        self._describe = describe
        self._send_timeout = send_timeout
        self._sent_at = time.monotonic()
        self._is_sending = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream, until its end, or the client leaves or is too slow: then its connection is of no use."""
        send_piece = scope["state"]["send_piece"]
        works = (self._stream(send, send_piece), self._watch(send_piece), disconnected(receive))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._lifecycle.close()

    async def _stream(self, start: Send, send: Send) -> None:
        await start({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # However long the first token takes, the client is not slow.
        self._is_sending, self._sent_at = False, time.monotonic()
        try:
            async with contextlib.aclosing(self._lifecycle.events()) as batches:
                async for number, events in batches:
                    if chunk := self._encode(number, events):
                        await self._send(send, chunk)
            end = self._describe.end()
        except Exception as error:
            end = await self._explain(error)
        # Still sending when all is sent: nothing may follow.
        self._is_sending, self._sent_at = True, time.monotonic()
        await send({"type": "http.response.body", "body": end, "more_body": False})

    def _encode(self, number: int, events: list[TokenEvent]) -> bytes:
        describe = self._describe.event
        bodies = [body for event in events if (body := describe(number, event)) is not None]
        return encode_events(*bodies) if bodies else b""

    async def _explain(self, error: Exception) -> bytes:
        await self._lifecycle.close(error)
        kind = spec_of(error, STREAM_ERRORS)
        if kind is INTERNAL:
            log.exception("a stream failed")
        return encode_events(self._describe.error(kind, str(error)))

    async def _send(self, send: Send, body: bytes) -> None:
        self._is_sending, self._sent_at = True, time.monotonic()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._is_sending = False

    async def _watch(self, send: Send) -> None:
        """Comments in a silence; ends when a write has waited for the client too long: for the timeout, or up to twice.

        One sleep at a time for a whole stream: a timer for each write would cost as much as the write.
        """
        while True:
            limit = self._send_timeout if self._is_sending else KEEP_ALIVE_SECONDS
            remaining = self._sent_at + limit - time.monotonic()
            if remaining > 0:
                await asyncio.sleep(min(remaining, self._send_timeout, KEEP_ALIVE_SECONDS))
            elif self._is_sending:
                return
            else:
                try:
                    await asyncio.wait_for(self._send(send, KEEP_ALIVE), self._send_timeout)
                except TimeoutError:
                    return
