"""Events of a streamed response, as dictionaries that are encoded as they are."""

from typing import Literal, get_args

from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.api.openai.answer_schemas import ChatLogprob
from peregrine_router.api.openai.responses.answer_schemas import OutputItem, OutputText, ResponseObject
from peregrine_router.http.errors import OpenAiError


class ItemPlace(TypedDict):
    """The item that an event is about."""

    item_id: str
    output_index: int


class PartPlace(ItemPlace):
    """The part of a message that an event is about."""

    content_index: int


class LifecycleEvent(TypedDict):
    """The response has begun or ended."""

    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    sequence_number: int
    response: ResponseObject


class OutputItemEvent(TypedDict):
    """An item of the output has begun or ended."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class ContentPartEvent(PartPlace):
    """The text of a message has begun or ended."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    part: OutputText


class TextDeltaEvent(PartPlace):
    """The text has grown."""

    type: Literal["response.output_text.delta"]
    sequence_number: int
    delta: str
    logprobs: list[ChatLogprob]


class TextDoneEvent(PartPlace):
    """The text is complete."""

    type: Literal["response.output_text.done"]
    sequence_number: int
    text: str
    logprobs: list[ChatLogprob]


class ArgumentsDeltaEvent(ItemPlace):
    """The arguments of a call have grown."""

    type: Literal["response.function_call_arguments.delta"]
    sequence_number: int
    delta: str


class ArgumentsDoneEvent(ItemPlace):
    """The arguments of a call are complete."""

    type: Literal["response.function_call_arguments.done"]
    sequence_number: int
    name: str
    arguments: str


class ResponseErrorEvent(TypedDict):
    """Generation failed. OpenAI documents the outer fields, and sends `error`; clients read either."""

    type: Literal["error"]
    sequence_number: int
    code: str | None
    message: str
    param: str | None
    error: OpenAiError


ResponseEvent = (
    LifecycleEvent
    | OutputItemEvent
    | ContentPartEvent
    | TextDeltaEvent
    | TextDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
    | ResponseErrorEvent
)
EVENT_TYPES = get_args(ResponseEvent)
"""Each of them, for the OpenAPI document."""
