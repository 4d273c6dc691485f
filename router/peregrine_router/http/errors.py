"""Errors: one table from exception type to status, error type and text, rendered in two formats.

TGI's routes answer {"error", "error_type"}, OpenAI's (/v1/...) {"error": {"message", "type", "param", "code"}}.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.admission.api_limits import set_by
from peregrine_router.request import (
    Cancelled,
    ContextLengthExceeded,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    Overloaded,
)
from peregrine_router.text.template_process import TemplateError

UNHEALTHY_RETRY_SECONDS = 1
"""`Retry-After` of a 503. Short, because a health check is cheap and succeeds as soon as a token can be made."""
OPENAI_PREFIX = "/v1/"


OPENAI_STATUSES = {422: 400, 424: 500}
"""TGI's status -> OpenAI's. Invalid input is a 400 there, and its clients send again what a 500 has lost."""


class ErrorResponse(TypedDict):
    """Body of every error of TGI's routes."""

    error: str
    error_type: str


class OpenAiError(TypedDict):
    """The error, and the parameter that caused it."""

    message: str
    type: str
    param: str | None
    code: str | None
    http_status_code: int


class OpenAiErrorResponse(TypedDict):
    """Body of every error on the routes under /v1."""

    error: OpenAiError


class IncompleteGeneration(RuntimeError):
    """The engine ended a sequence without its last event."""


class Unhealthy(RuntimeError):
    """No token can be made now."""


class ClientLeft(RuntimeError):
    """The client closed the connection before its answer was complete."""


class Unauthorized(RuntimeError):
    """The request has no valid API key."""


class UnknownModel(ValueError):
    """The request is for a model that is not served."""


class ToolError(ValueError):
    """`tools`, `tool_choice` and the parameters beside them contradict each other."""


class SuffixUnsupported(ValueError):
    """The request has OpenAI's `suffix`."""


class BatchTooLarge(ValueError):
    """The request has more prompts than --max-client-batch-size."""


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """How clients and metrics see one type of exception. `{}` in `text` is the exception's own message."""

    status: int
    error_type: str
    text: str
    label: str = "internal"
    """The label `err` of tgi_request_failure."""
    openai_text: str | None = None
    """`text` on OpenAI's routes, if it differs."""
    openai_code: str | None = None
    """`code` on OpenAI's routes, if it is not `error_type`."""

    @property
    def openai_status(self) -> int:
        """Status on OpenAI's routes."""
        return OPENAI_STATUSES.get(self.status, self.status)


INVALID = ErrorSpec(422, "validation", "Input validation error: {}", "validation")
INTERNAL = ErrorSpec(500, "internal", "Internal error; the server's log has more")
NO_SUFFIX = "Suffix is not supported and can be achieved by preprocessing the prompt."
ERRORS_BY_TYPE: dict[type[Exception], ErrorSpec] = {
    ContextLengthExceeded: replace(INVALID, openai_text="{}", openai_code="context_length_exceeded"),
    InvalidRequest: INVALID,
    TemplateError: ErrorSpec(422, "template_error", "Template error: {}", "template"),
    UnknownModel: ErrorSpec(
        404, "model_not_found", "The model '{}' does not exist: GET /v1/models lists what is served"
    ),
    ToolError: ErrorSpec(422, "tool_error", "Tool error: {}", "validation"),
    SuffixUnsupported: ErrorSpec(422, "suffix not supported", NO_SUFFIX, "validation"),
    BatchTooLarge: ErrorSpec(
        422,
        "batch size exceeded",
        "Number of prompts exceeds the maximum allowed batch size of {}" + set_by("max_client_batch_size"),
        "validation",
    ),
    Unauthorized: ErrorSpec(
        401,
        "unauthorized",
        "Send an API key of this server: `Authorization: Bearer <key>`",
        openai_code="invalid_api_key",
    ),
    Overloaded: ErrorSpec(
        429,
        "overloaded",
        "Model is overloaded",
        "overloaded",
        openai_text="Model is overloaded: {}",
        openai_code="rate_limit_exceeded",
    ),
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
    "grammar": "response_format",
}
"""TGI's parameter -> OpenAI's name of it."""
_QUOTED_NAME = re.compile(r"`(\w+)(?=[`.])")


def spec_of(error: Exception, table: Mapping[type[Exception], ErrorSpec] = ERRORS_BY_TYPE) -> ErrorSpec:
    """The table's row for an exception; `INTERNAL` if there is none."""
    return next((spec for type, spec in table.items() if isinstance(error, type)), INTERNAL)


def is_openai(path: str) -> bool:
    """Whether the route of `path` answers in OpenAI's format."""
    return path.startswith(OPENAI_PREFIX)


def tgi_error(spec: ErrorSpec, message: str) -> ErrorResponse:
    """The error in the format of TGI's routes."""
    return {"error": spec.text.format(message), "error_type": spec.error_type}


def openai_error(spec: ErrorSpec, message: str) -> OpenAiErrorResponse:
    """The error in the format of OpenAI's routes. `param` is the first name in backticks in the message."""
    text = (spec.openai_text or spec.text).format(message)
    text = _QUOTED_NAME.sub(lambda name: f"`{OPENAI_NAMES.get(name[1], name[1])}", text)
    param = _QUOTED_NAME.search(text) if spec.openai_status == 400 else None
    type = {401: "authentication_error", 429: "rate_limit_error"}.get(spec.status, "invalid_request_error")
    return {
        "error": {
            "message": text,
            "type": "server_error" if spec.openai_status >= 500 else type,
            "param": param[1] if param else None,
            "code": spec.openai_code or spec.error_type,
            "http_status_code": spec.openai_status,  # TGI's only field besides the message.
        }
    }


def install_error_handlers(app: FastAPI) -> None:
    """Makes the app answer every exception by the table."""
    for type in ERRORS_BY_TYPE:
        app.add_exception_handler(type, _answer)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer)


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """A response with `body` as JSON, without validation."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def error_response(path: str, error: Exception) -> Response:
    """The response to a request for `path` that failed with `error`."""
    # Rounded up: whole seconds, and never too early.
    headers = {"Retry-After": str(math.ceil(error.retry_after))} if isinstance(error, Overloaded) else None
    return _respond(path, spec_of(error), str(error), headers)


def _respond(path: str, spec: ErrorSpec, message: str, headers: Mapping[str, str] | None = None) -> Response:
    render, status = (openai_error, spec.openai_status) if is_openai(path) else (tgi_error, spec.status)
    special = {
        401: {"WWW-Authenticate": "Bearer"},
        503: {"Retry-After": str(UNHEALTHY_RETRY_SECONDS)},
    }
    if spec is INTERNAL:
        # Starlette re-raises the exception and uvicorn then closes the connection: say so, or the next request fails.
        special[spec.status] = {"Connection": "close"}
    return json_response(status, render(spec, message), {**special.get(spec.status, {}), **(headers or {})})


async def _answer(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, error)


async def _answer_malformed(request: Request, error: Exception) -> Response:
    """Reports the first error of a body that is JSON of the wrong shape."""
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
    spec = ErrorSpec(error.status_code, HTTP_TYPES.get(error.status_code, "http"), "{}")
    return _respond(path, spec, text, error.headers)
