"""Answers of /v1/responses, as dictionaries that are encoded as they are."""

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.api.openai.answer_schemas import ChatLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class InputText(TypedDict):
    """Text of a message to the model."""

    type: Literal["input_text"]
    text: str


class OutputText(TypedDict):
    """Text of the model's message. `logprobs` is empty unless asked for."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ChatLogprob]


class Refusal(TypedDict):
    """A refusal in the conversation."""

    type: Literal["refusal"]
    refusal: str


class MessageItem(TypedDict):
    """A message of anyone."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["user", "assistant", "system", "developer"]
    content: list[InputText | OutputText | Refusal]


class FunctionCallItem(TypedDict):
    """A call of a function; `arguments` is JSON text."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(TypedDict):
    """The value that the function returned."""

    id: str
    type: Literal["function_call_output"]
    status: ItemStatus
    call_id: str
    output: str


OutputItem = MessageItem | FunctionCallItem
Item = OutputItem | FunctionCallOutputItem


class InputTokensDetails(TypedDict):
    """Number of prompt tokens found in the prefix cache. Writes to the cache are not counted."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    """Number of tokens of reasoning: none."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """Numbers of tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(TypedDict):
    """The reason why generation failed."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    """The reason why the response is cut off."""

    reason: Literal["max_output_tokens"]


class ResponseObject(TypedDict):
    """A response, complete or in the making."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, None]
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None


class ItemList(TypedDict):
    """A page of the items that a response was made of."""

    object: Literal["list"]
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool


class DeletedResponse(TypedDict):
    """A response that is no longer stored."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]
