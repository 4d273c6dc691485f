"""Exception type -> status, error type, text: one table, and two ways to write it.

TGI's routes answer {"error", "error_type"}, OpenAI's (/v1/...) {"error": {"message", "type", "param", "code"}}.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.request import Cancelled, DeadlineExceeded, GenerationFailed, InvalidRequest, Overloaded
from peregrine_router.text.template_process import TemplateError

UNHEALTHY_RETRY_SECONDS = 1
"""A health check is cheap, and says at once when a token can be made again."""
OPENAI_PREFIX = "/v1/"


class ErrorResponse(TypedDict):
    """Every error's body."""

    error: str
    error_type: str


class IncompleteGeneration(RuntimeError):
    """The engine ended a generation without its last event."""


class Unhealthy(RuntimeError):
    """No token can be made now."""


class ClientLeft(RuntimeError):
    """Nobody reads the answer any more."""


class Unauthorized(RuntimeError):
    """The request has no valid API key."""


class ToolError(ValueError):
    """`tools` and what goes with them do not fit together."""


class SuffixUnsupported(ValueError):
    """OpenAI's `suffix`."""


class BatchTooLarge(ValueError):
    """More prompts than one request may have."""


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """What a client and the metrics see of one type of exception. `{}` in `text` is the exception's own message."""

    status: int
    error_type: str
    text: str
    label: str = "internal"
    """The `err` of tgi_request_failure."""


INVALID = ErrorSpec(422, "validation", "Input validation error: {}", "validation")
INTERNAL = ErrorSpec(500, "internal", "Internal error; the server's log has more")
NO_SUFFIX = "Suffix is not supported and can be achieved by preprocessing the prompt."
ERRORS_BY_TYPE: dict[type[Exception], ErrorSpec] = {
    InvalidRequest: INVALID,
    TemplateError: ErrorSpec(422, "template_error", "Template error: {}", "template"),
    ToolError: ErrorSpec(422, "tool_error", "Tool error: {}", "validation"),
    SuffixUnsupported: ErrorSpec(422, "suffix not supported", NO_SUFFIX, "validation"),
    BatchTooLarge: ErrorSpec(
        422, "batch size exceeded", "Number of prompts exceeds the maximum allowed batch size of {}", "validation"
    ),
    Unauthorized: ErrorSpec(401, "unauthorized", "Send an API key of this server: `Authorization: Bearer <key>`"),
    Overloaded: ErrorSpec(429, "overloaded", "Model is overloaded", "overloaded"),
    DeadlineExceeded: ErrorSpec(504, "timeout", "Request timed out: {}", "timeout"),
    GenerationFailed: ErrorSpec(424, "generation", "Request failed during generation: {}", "generation"),
    IncompleteGeneration: ErrorSpec(500, "incomplete_generation", "Incomplete generation", "incomplete"),
    Unhealthy: ErrorSpec(503, "healthcheck", "unhealthy"),
    # 499 is what nginx logs for a request that its client ended.
    Cancelled: ErrorSpec(499, "cancelled", "The request was cancelled", "cancelled"),
    ClientLeft: ErrorSpec(499, "client_left", "The client left", "dropped"),
}
STREAM_ERRORS = ERRORS_BY_TYPE | {
    IncompleteGeneration: ErrorSpec(500, "incomplete_generation_stream", "Incomplete generation stream", "incomplete")
}
HTTP_TYPES: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation",
}
OPENAI_NAMES = {
    "max_new_tokens": "max_tokens",
    "top_n_tokens": "top_logprobs",
    "best_of": "n",
    "grammar": "response_format",
}
"""What OpenAI's clients call TGI's parameters."""
_QUOTED_NAME = re.compile(r"`(\w+)(?=[`.])")


def spec_of(error: Exception, kinds: Mapping[type[Exception], ErrorSpec] = ERRORS_BY_TYPE) -> ErrorSpec:
    """The row of an exception; `INTERNAL` if it has none."""
    return next((kind for type, kind in kinds.items() if isinstance(error, type)), INTERNAL)


def is_openai(path: str) -> bool:
    """Whether a route answers as OpenAI does."""
    return path.startswith(OPENAI_PREFIX)


def tgi_error(kind: ErrorSpec, message: str) -> ErrorResponse:
    """The JSON of TGI's routes."""
    return {"error": kind.text.format(message), "error_type": kind.error_type}


def openai_error(kind: ErrorSpec, message: str) -> dict[str, object]:
    """The JSON of OpenAI's routes. `param` is the first name that the message quotes."""
    text = _QUOTED_NAME.sub(lambda name: f"`{OPENAI_NAMES.get(name[1], name[1])}", kind.text.format(message))
    param = _QUOTED_NAME.search(text) if kind.status == 422 else None
    type = {401: "authentication_error", 429: "rate_limit_error"}.get(kind.status, "invalid_request_error")
    return {
        "error": {
            "message": text,
            "type": "server_error" if kind.status >= 500 or kind.status == 424 else type,
            "param": param[1] if param else None,
            "code": kind.error_type,
            "http_status_code": kind.status,  # TGI's only field besides the message.
        }
    }


def install_error_handlers(app: FastAPI) -> None:
    """Makes the app answer every exception from the table."""
    for type in ERRORS_BY_TYPE:
        app.add_exception_handler(type, _answer)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer)


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A body that is encoded as it is."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def error_response(path: str, error: Exception) -> Response:
    """The answer to a request for `path` that failed."""
    # Never a fraction too early.
    headers = {"Retry-After": str(math.ceil(error.retry_after))} if isinstance(error, Overloaded) else None
    return _respond(path, spec_of(error), str(error), headers)


def _respond(path: str, kind: ErrorSpec, message: str, headers: Mapping[str, str] | None = None) -> Response:
    render = openai_error if is_openai(path) else tgi_error
    special = {
        401: {"WWW-Authenticate": "Bearer"},
        503: {"Retry-After": str(UNHEALTHY_RETRY_SECONDS)},
    }
    if kind is INTERNAL:
        # Starlette raises it again for the log, at which uvicorn closes the connection: its next request would fail.
        special[kind.status] = {"Connection": "close"}
    return json_response(kind.status, render(kind, message), {**special.get(kind.status, {}), **(headers or {})})


async def _answer(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, error)


async def _answer_malformed(request: Request, error: Exception) -> Response:
    """A body that is JSON, but not the right one: its first fault."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return _respond(request.url.path, INVALID, f"`{where}`: {first['msg']}")


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    text = {
        "Not Found": f"There is no {path} here; GET /docs lists the routes",
        "Method Not Allowed": f"{path} does not take {method}, but {(error.headers or {}).get('Allow')}",
    }.get(error.detail, error.detail)
    kind = ErrorSpec(error.status_code, HTTP_TYPES.get(error.status_code, "http"), "{}")
    return _respond(path, kind, text, error.headers)
