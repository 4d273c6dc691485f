"""Request bodies: content type, size and structure are checked before a body is parsed, because any may be hostile."""

from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from peregrine_router.http.body_budget import BodyLease, Holder

MAX_DRAIN_FACTOR = 8
"""A body up to this many times the limit is read and discarded before the 413: closing a connection with unread data
resets it, and the client would see the reset instead of the answer."""

BODY_SECONDS = 60.0
"""Timeout of reading a body: 33 kB/s for 2 MB. Until then a slow body occupies its connection and nothing else."""

MAX_MEMBERS = 2**15
"""Most objects, arrays and names of members in a body. Each takes up to 1 us to parse and 10 us to validate, and all
other requests wait: 20 ms for this many. 64 tools with 100 keywords each have a quarter of it."""
MAX_VALUES = 2**18
"""Most values in arrays and objects of a body, such as token ids: 40 ms for this many."""
INLINE_BYTES = 2**16
"""Size up to which a body is parsed on the event loop: in 2 ms at most. Threads parse larger ones, one at a time."""
_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (MAX_MEMBERS, b"[{:", "objects, arrays and names"),
    (MAX_VALUES, b",", "values"),
)
_CHUNK = 2**17


class JsonRequest(Request):
    """A request whose body must be JSON of at most `limit` bytes."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        super().__init__(scope, receive)
        self._limit = limit
        self._lease = BodyLease(self.app.state.body_budget, self._holder)

    async def body(self) -> bytes:
        """The whole body. Raises HTTPException 415, 413, 408, 422 or 429."""
        if not hasattr(self, "_body"):
            self._check_type()
            self._body = await self._read()
        return self._body

    async def json(self) -> Any:
        """The parsed body. Raises HTTPException 413 or 422, see `parse_json`, or 429."""
        body = await self.body()
        try:
            if len(body) <= INLINE_BYTES:
                return parse_json(body)
            async with self._lease.waiting():
                return await self.app.state.body_threads.run(lambda: parse_json(body))
        finally:
            self.release()

    def release(self) -> None:
        """Gives the body's room in the budget back."""
        self._lease.release()

    @property
    def _holder(self) -> Holder:
        tenant = self.state.tenant.name
        return tenant, "" if tenant or self.client is None else self.client.host

    def _check_type(self) -> None:
        given = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != "application/json" and not (given.startswith("application/") and given.endswith("+json")):
            raise HTTPException(415, "The body must be JSON: send the header `Content-Type: application/json`")

    async def _read(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            async with self._lease.waiting(BODY_SECONDS):
                async for chunk in self.stream():
                    size += len(chunk)
                    if size <= self._limit:
                        self._lease.take(len(chunk))
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


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises HTTPException 413 if it has too many parts, and 422 if it is none: NaN, lone
    surrogates and over 200 levels of nesting are not JSON."""
    for limit, marks, name in _MARKS:
        # The first count includes text; only a long text has so many marks in it.
        if _count(body, marks) > limit and exceeds(limit, body, marks):
            raise HTTPException(413, f"The body has more than {limit} {name}")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(422, f"Input validation error: malformed JSON: {error}") from None


def exceeds(limit: int, body: bytes, marks: bytes) -> bool:
    """Whether a JSON text has more than `limit` of the bytes `marks`, those in its strings excepted."""
    text = np.frombuffer(_without_escapes(body), np.uint8)
    count, is_in_string = 0, False
    for start in range(0, len(text), _CHUNK):
        chunk = text[start : start + _CHUNK]
        outside = np.logical_xor.accumulate(chunk == ord('"')) ^ is_in_string
        np.logical_not(outside, out=outside)
        is_in_string = not outside[-1]
        count += sum(int(np.count_nonzero(outside & (chunk == mark))) for mark in marks)
        if count > limit:
            return True
    return False


def _without_escapes(body: bytes) -> bytes:
    # To look for one takes a hundredth of the time of replacing what is not there.
    return body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body


def _count(body: bytes, marks: bytes) -> int:
    """Occurrences of the bytes `marks`. numpy takes a third of the time of `bytes.count`, without the lock."""
    text = np.frombuffer(body, np.uint8)
    return sum(int(np.count_nonzero(text == mark)) for mark in marks)


def json_route(limit: int) -> type[APIRoute]:
    """A class of routes whose body is a JsonRequest of at most `limit` bytes."""

    class JsonRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def with_limit(request: Request) -> Response:
                given = JsonRequest(request.scope, request.receive, limit)
                try:
                    return await handle(given)
                finally:
                    given.release()

            return with_limit

    return JsonRoute
