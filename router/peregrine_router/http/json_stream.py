"""Answers that are sent as they are read: long JSON is made in pieces, no faster than the client takes them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import chain, islice
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from peregrine_router.http.disconnect import disconnected, unless_client_leaves, until_first_ends
from peregrine_router.http.live_requests import LiveRequests

Pieces = Iterator[bytes]
"""JSON, made as it is asked for."""
NUM_WHOLE = 16
"""Pieces up to which an answer is sent at once, with its length: 4,096 tokens, 4 ms on the event loop."""


async def answer_work(
    request: Request, live: LiveRequests, work: Coroutine[Any, Any, Pieces], send_timeout: float
) -> Response:
    """Does work that is no generation under a permit, as a generation has one, and only while the client stays.

    Raises Overloaded, ClientLeft, and what `work` raises.
    """
    try:
        release = live.acquire(request)
    except BaseException:
        work.close()
        raise
    try:
        pieces = await unless_client_leaves(request, work)
        first = list(islice(pieces, NUM_WHOLE))
    except BaseException:
        release()
        raise
    if len(first) < NUM_WHOLE:
        release()
        return Response(b"".join(first), media_type="application/json")
    return JsonStream(chain(first, pieces), send_timeout, release)


class JsonStream(Response):
    """Sends JSON piece by piece."""

    media_type = "application/json"

    def __init__(self, pieces: Pieces, send_timeout: float, on_close: Callable[[], None]) -> None:
        """`send_timeout`: seconds after which a write that the client does not read ends the answer."""
        super().__init__()
        del self.headers["content-length"]
        self._pieces = pieces
        self._send_timeout = send_timeout
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer until its end, or until the client leaves or reads too slowly to be sent more."""
        try:
            await until_first_ends(self._send(send, scope["state"]["send_chunk"]), disconnected(receive))
        finally:
            self._on_close()

    async def _send(self, start: Send, send: Send) -> None:
        await start({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            for piece in self._pieces:
                message = {"type": "http.response.body", "body": piece, "more_body": True}
                await asyncio.wait_for(send(message), self._send_timeout)
                # A write that does not block does not let others run.
                await asyncio.sleep(0)
        except TimeoutError:
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
