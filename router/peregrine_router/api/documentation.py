"""What /docs says of errors and streams, on every route alike."""

from typing import Any

from peregrine_router.api.openai_schemas import OpenAiErrorResponse
from peregrine_router.api.schemas import ErrorResponse

Responses = dict[int | str, dict[str, Any]]
DESCRIPTIONS = {
    401: "No API key, or a wrong one.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    413: "The body is larger than --payload-limit.",
    415: "The body is not JSON.",
    422: "The request is wrong; the text says what.",
    424: "The generation failed.",
    429: "Too many requests; try again after `Retry-After` seconds.",
    499: "POST /cancel ended the request.",
    500: "A fault of the server.",
}
EVENTS: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}


def errors(*statuses: int, model: Any = ErrorResponse) -> Responses:
    """The documentation of errors."""
    return {status: {"model": model, "description": DESCRIPTIONS[status]} for status in statuses}


UNAUTHORIZED = errors(401)
ERRORS = errors(*(status for status in DESCRIPTIONS if status != 404))
OPENAI_ERRORS = errors(*(status for status in DESCRIPTIONS if status != 404), model=OpenAiErrorResponse)
