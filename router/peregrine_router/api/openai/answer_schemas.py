"""Answers of the OpenAI routes, as dictionaries that are encoded as they are."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

FinishReason = Literal["stop", "length", "tool_calls"]


class PromptTokensDetails(TypedDict):
    """Of the prompts' tokens, those that earlier requests had computed."""

    cached_tokens: int


class Usage(TypedDict):
    """Tokens of all prompts and answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CompletionLogprobs(TypedDict):
    """Lists of equal length, one item a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class CompletionChunk(TypedDict):
    """An event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]


class Completion(CompletionChunk):
    """The answer, or with `stream` a chunk of it."""

    usage: NotRequired[Usage | None]


class TopLogprob(TypedDict):
    """A token that could have been."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    """A token and what could have been in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """One item a token."""

    content: list[ChatLogprob]


class FunctionCallAnswer(TypedDict):
    """`arguments` is JSON text; streamed, a piece of it."""

    name: NotRequired[str]
    arguments: str


class ToolCallAnswer(TypedDict):
    """A call; in a stream with `index`, and `id` in the first piece only."""

    index: NotRequired[int]
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionCallAnswer


class AssistantMessage(TypedDict):
    """What the model says, or calls."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCallAnswer]]


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """The answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(TypedDict):
    """A piece of one answer."""

    index: int
    delta: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(TypedDict):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]


class Model(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class OpenAiError(TypedDict):
    """What is wrong, and with which parameter."""

    message: str
    type: str
    param: str | None
    code: str | None
    http_status_code: int


class OpenAiErrorResponse(TypedDict):
    """Every error's body on the routes under /v1."""

    error: OpenAiError
