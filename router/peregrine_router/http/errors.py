"""Errors: one table from exception type to status, error type and text, rendered in two formats.

TGI's routes answer {"error", "error_type"}, OpenAI's (/v1/...) {"error": {"message", "type", "param", "code"}}.
"""

import math
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
from peregrine_router.http.exceptions import (
    BatchTooLarge,
    ClientLeft,
    Forbidden,
    IncompleteGeneration,
    SuffixUnsupported,
    ToolError,
    Unauthorized,
    Unhealthy,
    UnknownItem,
    UnknownModel,
    UnknownPreviousResponse,
    UnknownResponse,
)
from peregrine_router.http.failure_log import log_cause
from peregrine_router.http.malformed_body import first_error
from peregrine_router.http.methods import allowed, methods_of
from peregrine_router.http.parameter_names import OPENAI_NAMES, first_name, names_of, renamed
from peregrine_router.request import (
    Cancelled,
    ContextLengthExceeded,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    Overloaded,
    ServerStopping,
)
from peregrine_router.text.template_process import TemplateError, TemplateProcessDied

UNHEALTHY_RETRY_SECONDS = 1
"""`Retry-After` of a 503. Short, because a health check is cheap and succeeds as soon as a token can be made."""
OPENAI_PREFIX = "/v1/"
OPENAI_STATUSES = {422: 400, 424: 500}
"""TGI's status -> OpenAI's. Invalid input is a 400 there, and its clients send again what a 500 has lost."""
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Status -> `type` of OpenAI's errors, where it is not invalid_request_error or server_error."""


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
    TemplateProcessDied: ErrorSpec(503, "template_process", "Chats cannot be rendered now; try again", "template"),
    UnknownModel: ErrorSpec(
        404, "model_not_found", "The model '{}' does not exist: GET /v1/models lists what is served"
    ),
    UnknownResponse: ErrorSpec(404, "not_found", "Response with id '{}' not found."),
    UnknownPreviousResponse: ErrorSpec(
        422,
        "previous_response_not_found",
        "Previous response with id '{}' not found. `previous_response_id` names a response of the same API key that is "
        "still stored: send the conversation as `input` instead",
        "validation",
    ),
    UnknownItem: ErrorSpec(
        404,
        "not_found",
        "Item with id '{}' not found. Items are not persisted when `store` is set to false, and expire: send the item "
        "itself, or remove it from your `input`.",
        "validation",
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
    Forbidden: ErrorSpec(
        403,
        "forbidden",
        "This API key may not call this route: the operator gives it the scope {} in the file of --api-key-file",
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
    ServerStopping: ErrorSpec(503, "stopping", "Request ended: {}", "stopping"),
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
    429: "overloaded",
}


def spec_of(error: Exception, table: Mapping[type[Exception], ErrorSpec] = ERRORS_BY_TYPE) -> ErrorSpec:
    """The table's row for an exception; `INTERNAL` if there is none."""
    return next((spec for type, spec in table.items() if isinstance(error, type)), INTERNAL)


def is_openai(path: str) -> bool:
    """Whether the route of `path` answers in OpenAI's format."""
    return path.startswith(OPENAI_PREFIX)


def tgi_error(spec: ErrorSpec, message: str) -> ErrorResponse:
    """The error in the format of TGI's routes."""
    return {"error": spec.text.format(message), "error_type": spec.error_type}


def openai_error(spec: ErrorSpec, message: str, names: Mapping[str, str] = OPENAI_NAMES) -> OpenAiErrorResponse:
    """The error in the format of OpenAI's routes. `param` is the first name in backticks in the message.

    `names`: the route's own names of parameters.
    """
    text = (spec.openai_text or spec.text).format(message)
    text = renamed(text, names)
    type = OPENAI_TYPES.get(spec.status, "invalid_request_error")
    return {
        "error": {
            "message": text,
            "type": "server_error" if spec.openai_status >= 500 else type,
            "param": first_name(text) if spec.openai_status == 400 else None,
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
    status = spec.openai_status if is_openai(path) else spec.status
    body = openai_error(spec, message, names_of(path)) if is_openai(path) else tgi_error(spec, message)
    special = {
        401: {"WWW-Authenticate": "Bearer"},
        503: {"Retry-After": str(UNHEALTHY_RETRY_SECONDS)},
    }
    if spec is INTERNAL:
        # Starlette re-raises the exception and uvicorn then closes the connection: say so, or the next request fails.
        special[spec.status] = {"Connection": "close"}
    return json_response(status, body, {**special.get(spec.status, {}), **(headers or {})})


async def _answer(request: Request, error: Exception) -> Response:
    log_cause(error)
    return error_response(request.url.path, error)


async def _answer_malformed(request: Request, error: Exception) -> Response:
    """Reports the first error of a body that is JSON of the wrong shape."""
    assert isinstance(error, RequestValidationError)
    return _respond(request.url.path, INVALID, first_error(error.errors(), error.body))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, dict(error.headers or {})
    # Starlette's Allow has the methods of the path's first route alone.
    methods = methods_of(getattr(request.app, "all_routes", ()), request.scope)
    if error.status_code == 405 and methods:
        headers["Allow"] = allowed(methods)
    text = {
        "Not Found": f"There is no {path} here; GET /docs lists the routes",
        "Method Not Allowed": f"{path} does not take {request.method}, but {' and '.join(sorted(methods))}",
    }.get(error.detail, error.detail)
    spec = ErrorSpec(error.status_code, HTTP_TYPES.get(error.status_code, "http"), "{}")
    return _respond(path, spec, text, headers)
