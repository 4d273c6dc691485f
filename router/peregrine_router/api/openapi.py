"""What /docs says of errors and streams, on every route alike."""

from typing import Any

from peregrine_router.admission.generate_parameters import MAX_TIMEOUT
from peregrine_router.admission.rules import REQUEST_TIMEOUT
from peregrine_router.api.openai.answer_schemas import OpenAiErrorResponse
from peregrine_router.http.errors import ErrorResponse

Responses = dict[int | str, dict[str, Any]]
DESCRIPTIONS = {
    401: "No API key, or a wrong one.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    413: "The body is larger than --payload-limit.",
    415: "The body is not JSON.",
    422: "The request is wrong; the text says what.",
    424: "The generation failed.",
    429: "Too many requests; there will be room in `Retry-After` seconds, as far as the server can tell.",
    499: "POST /cancel ended the request.",
    500: "A fault of the server.",
    504: "The request did not end within its timeout.",
}
EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One event: a line `data: ` and JSON.",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}


TIMEOUT_HEADER: dict[str, Any] = {
    "parameters": [
        {
            "name": REQUEST_TIMEOUT,
            "in": "header",
            "required": False,
            "description": "As `timeout`, for clients that cannot send that; the lesser of both holds.",
            "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT},
        }
    ]
}


def events(example: str) -> dict[str, Any]:
    """The content of a stream."""
    return {"text/event-stream": {"schema": EVENT_SCHEMA, "example": example}}


TGI_EVENTS = events(
    'data: {"index":1,"token":{"id":7,"text":" a","logprob":-0.5,"special":false},'
    '"generated_text":null,"details":null}\n\n'
)
COMPLETION_EVENTS = events(
    'data: {"id":"cmpl-1","object":"text_completion","created":1767225600,"model":"tgi","choices":'
    '[{"index":0,"text":" a","logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
CHAT_EVENTS = events(
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"tgi","choices":'
    '[{"index":0,"delta":{"role":"assistant","content":" a"},"logprobs":null,"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)


def errors(*statuses: int, model: Any = ErrorResponse) -> Responses:
    """The documentation of errors."""
    return {status: {"model": model, "description": DESCRIPTIONS[status]} for status in statuses}


UNAUTHORIZED = errors(401)
ERRORS = errors(*(status for status in DESCRIPTIONS if status != 404))
OPENAI_ERRORS = errors(*(status for status in DESCRIPTIONS if status != 404), model=OpenAiErrorResponse)
