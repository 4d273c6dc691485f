"""Request bodies: content type, size and nesting are checked before a body is parsed, because any may be hostile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

MAX_DRAIN_FACTOR = 8
"""A body up to this many times the limit is read and discarded before the 413: closing a connection with unread data
resets it, and the client would see the reset instead of the answer."""

BODY_SECONDS = 60.0
"""Timeout of reading a body: 33 kB/s for 2 MB. Until then a slow body occupies its connection and nothing else."""


class JsonRequest(Request):
    """A request whose body must be JSON of at most `limit` bytes."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        super().__init__(scope, receive)
        self._limit = limit

    async def body(self) -> bytes:
        """The whole body. Raises HTTPException 415, 413, 408 or 422."""
        if not hasattr(self, "_body"):
            self._check_type()
            self._body = await self._read()
        return self._body

    async def json(self) -> Any:
        """The parsed body. Raises HTTPException 422, also for NaN, lone surrogates and over 200 levels of nesting."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(422, f"Input validation error: malformed JSON: {error}") from None

    def _check_type(self) -> None:
        given = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != "application/json" and not (given.startswith("application/") and given.endswith("+json")):
            raise HTTPException(415, "The body must be JSON: send the header `Content-Type: application/json`")

    async def _read(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in self.stream():
                    size += len(chunk)
                    if size <= self._limit:
                        chunks.append(chunk)
                    elif size > MAX_DRAIN_FACTOR * self._limit:
                        break
        except TimeoutError:
            text = f"The body did not arrive within {BODY_SECONDS:.0f} seconds"
            raise HTTPException(408, text, {"Connection": "close"}) from None
        if size > self._limit:
            text = f"The body is larger than {self._limit} bytes; the operator sets this by --payload-limit"
            raise HTTPException(413, text, {"Connection": "close"})
        if size == 0:
            raise HTTPException(422, "Input validation error: malformed JSON: the body is empty")
        return b"".join(chunks)


def json_route(limit: int) -> type[APIRoute]:
    """A class of routes whose body is a JsonRequest of at most `limit` bytes."""

    class JsonRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def with_limit(request: Request) -> Response:
                return await handle(JsonRequest(request.scope, request.receive, limit))

            return with_limit

    return JsonRoute
