"""OpenAPI descriptions of errors, streams and headers that routes have in common."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from peregrine_router.admission.generate_parameters import MAX_TIMEOUT
from peregrine_router.admission.rules import REQUEST_TIMEOUT
from peregrine_router.http.errors import ErrorResponse, OpenAiErrorResponse

Responses = dict[int | str, dict[str, Any]]
INVALID = "The request is invalid; the message says why."
DESCRIPTIONS = {
    400: INVALID,
    401: "API key missing or invalid.",
    403: "The API key lacks the scope of this route.",
    404: "Not found.",
    408: "The request body did not arrive in time.",
    413: "The request body is larger than --payload-limit.",
    415: "The request body is not JSON.",
    422: INVALID,
    424: "Generation failed.",
    429: "Too many requests. `Retry-After` is the estimated number of seconds until there is room.",
    499: "The request was cancelled by POST /cancel.",
    500: "Internal server error.",
    504: "The request did not complete within its timeout.",
}
SCHEMAS = "#/components/schemas/"
"""Place of the schemas in the document."""
TIMEOUT_HEADER: dict[str, Any] = {
    "parameters": [
        {
            "name": REQUEST_TIMEOUT,
            "in": "header",
            "required": False,
            "description": "Same as `timeout`, for clients that cannot set it; the smaller of both applies.",
            "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT},
        }
    ]
}


def events(example: str, *schemas: str) -> dict[str, Any]:
    """Describes the content of a stream whose events hold JSON of one of `schemas`, names in the document."""
    data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json"}
    data["contentSchema"] = {"anyOf": [{"$ref": SCHEMAS + name} for name in schemas]}
    event = {
        "type": "object",
        "description": "Server-sent event: a line `data: ` followed by JSON.",
        "properties": {"data": data},
        "required": ["data"],
    }
    return {"text/event-stream": {"schema": event, "example": example}}


def add_schemas(document: dict[str, Any], types: Iterable[Any]) -> None:
    """Adds to the document the schemas of `types` and of all that they hold, as in an answer."""
    inputs = [(str(number), "serialization", TypeAdapter(type)) for number, type in enumerate(types)]
    _, found = TypeAdapter.json_schemas(inputs, ref_template=SCHEMAS + "{model}")  # type: ignore[arg-type]
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = dict(sorted((found["$defs"] | schemas).items()))


TGI_EVENT = (
    'data: {"index":1,"token":{"id":7,"text":" a","logprob":-0.5,"special":false},'
    '"generated_text":null,"details":null}\n\n'
)
COMPLETION_EVENTS = events(
    'data: {"id":"cmpl-1","object":"text_completion","created":1767225600,"model":"tgi","choices":'
    '[{"index":0,"text":" a","logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n',
    "Completion",
    "OpenAiErrorResponse",
)
CHAT_EVENTS = events(
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"tgi","choices":'
    '[{"index":0,"delta":{"role":"assistant","content":" a"},"logprobs":null,"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n",
    "ChatChunk",
    "OpenAiErrorResponse",
)
RESPONSE_EVENTS = events(
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
    '"item_id":"msg_1","output_index":0,"content_index":0,"delta":" a","logprobs":[]}\n\n',
    "LifecycleEvent",
    "OutputItemEvent",
    "ContentPartEvent",
    "TextDeltaEvent",
    "TextDoneEvent",
    "ArgumentsDeltaEvent",
    "ArgumentsDoneEvent",
    "ResponseErrorEvent",
)
TGI_EVENTS = events(TGI_EVENT, "StreamResponse", "ErrorResponse")
INVOCATION_EVENTS = events(TGI_EVENT, "StreamResponse", "ChatChunk", "Completion", "ErrorResponse")


def errors(*statuses: int, model: Any = ErrorResponse) -> Responses:
    """Describes the error answers of a route."""
    return {status: {"model": model, "description": DESCRIPTIONS[status]} for status in statuses}


def without_framework_errors(document: dict[str, Any]) -> dict[str, Any]:
    """Removes from an OpenAPI document the 422 that FastAPI adds to each route with a body that does not describe its
    own: under /v1 that answer is a 400."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if operation["responses"].get("422", {}).get("description") == "Validation Error":
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


UNAUTHORIZED = errors(401, 403)
ERRORS = errors(*(status for status in DESCRIPTIONS if status not in (400, 404)))
OPENAI_ERRORS = errors(*(status for status in DESCRIPTIONS if status not in (404, 422, 424)), model=OpenAiErrorResponse)
