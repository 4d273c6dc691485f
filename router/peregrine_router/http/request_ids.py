"""`x-request-id`: every request has an id, the client's or a new one, and every answer carries it."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peregrine_router.observability.log import log_context

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")


class RequestIds:
    """Middleware that sets `state.request_id` and the answer's `x-request-id`. Plain ASGI: streams pass unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = clean_request_id(Headers(scope=scope).get(REQUEST_ID, ""))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        log_context.set({"id": request_id})
        # Streams write body chunks through this `send` directly: none of the six middlewares changes a body chunk, and
        # passing each chunk through them costs as much as encoding it.
        state["send_chunk"] = send

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def clean_request_id(given: str) -> str:
    """The letters, digits and `._:-` of a client's id, up to MAX_REQUEST_ID_LENGTH; a new id if none are left."""
    return _UNSAFE.sub("", given)[:MAX_REQUEST_ID_LENGTH] or uuid.uuid4().hex
