"""Exception type -> status, error type, text: one table. Every error's body is {"error", "error_type"}."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.api.schemas import ErrorResponse
from peregrine_router.request import GenerationFailed, InvalidRequest, Overloaded

RETRY_AFTER_SECONDS = 1


class IncompleteGeneration(RuntimeError):
    """The engine ended a generation without its last event."""


class Unhealthy(RuntimeError):
    """No token can be made now."""


class ClientLeft(RuntimeError):
    """Nobody reads the answer any more."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a client and the metrics see of one type of exception. `{}` in `text` is the exception's own message."""

    status: int
    error_type: str
    text: str
    label: str = "internal"
    """The `err` of tgi_request_failure."""

    def body(self, message: str) -> ErrorResponse:
        """The JSON of the answer, or of the event that ends a stream."""
        return {"error": self.text.format(message), "error_type": self.error_type}


INVALID = Kind(422, "validation", "Input validation error: {}", "validation")
INTERNAL = Kind(500, "internal", "Internal error; the server's log has more")
KINDS: dict[type[Exception], Kind] = {
    InvalidRequest: INVALID,
    Overloaded: Kind(429, "overloaded", "Model is overloaded", "overloaded"),
    GenerationFailed: Kind(424, "generation", "Request failed during generation: {}", "generation"),
    IncompleteGeneration: Kind(500, "incomplete_generation", "Incomplete generation", "incomplete"),
    Unhealthy: Kind(503, "healthcheck", "unhealthy"),
    # 499 is what nginx logs for it; no client is there to see it.
    ClientLeft: Kind(499, "client_left", "The client left", "dropped"),
}
STREAM_KINDS = KINDS | {
    IncompleteGeneration: Kind(500, "incomplete_generation_stream", "Incomplete generation stream", "incomplete")
}
HTTP_TYPES: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation",
}


def kind_of(error: Exception, kinds: Mapping[type[Exception], Kind] = KINDS) -> Kind:
    """The row of an exception; `INTERNAL` if it has none."""
    return next((kind for type, kind in kinds.items() if isinstance(error, type)), INTERNAL)


def install_error_handlers(app: FastAPI) -> None:
    """Makes the app answer every exception from the table."""
    for type in KINDS:
        app.add_exception_handler(type, _answer)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer)


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A body that is encoded as it is."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def _answer(request: Request, error: Exception) -> Response:
    kind = kind_of(error)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if kind.status == 429 else None
    return json_response(kind.status, kind.body(str(error)), headers)


async def _answer_malformed(request: Request, error: Exception) -> Response:
    """A body that is JSON, but not the right one: its first fault."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return json_response(INVALID.status, INVALID.body(f"`{where}`: {first['msg']}"))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    text = {
        404: f"There is no {path} here; GET /docs lists the routes",
        405: f"{path} does not take {method}, but {(error.headers or {}).get('Allow')}",
    }.get(error.status_code, error.detail)
    kind = HTTP_TYPES.get(error.status_code, "http")
    return json_response(error.status_code, {"error": text, "error_type": kind}, error.headers)
