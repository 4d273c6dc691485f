"""Answers of the OpenAI routes, as dictionaries that are encoded as they are."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class PromptTokensDetails(TypedDict):
    """Number of prompt tokens found in the prefix cache."""

    cached_tokens: int


class Usage(TypedDict):
    """Numbers of tokens over all prompts and choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CompletionLogprobs(TypedDict):
    """Lists of equal length, with one item per token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One of the `n` answers."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class Completion(TypedDict):
    """The answer, or one chunk of it with `stream`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: NotRequired[Usage | None]


class TopLogprob(TypedDict):
    """One of the most probable tokens at a position."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    """The chosen token, and the most probable ones at its position."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities, with one item per token. None is of a refusal."""

    content: list[ChatLogprob]
    refusal: None


class FunctionCallAnswer(TypedDict):
    """Name and arguments of a call. `arguments` is JSON text, or a part of it in a stream."""

    name: NotRequired[str]
    arguments: str


class ToolCallAnswer(TypedDict):
    """A tool call. In a stream it has an `index`, and `id` in its first part only."""

    index: NotRequired[int]
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionCallAnswer


class AssistantMessage(TypedDict):
    """The text or the tool calls of the model, which refuses nothing."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    refusal: NotRequired[None]
    tool_calls: NotRequired[list[ToolCallAnswer]]
    function_call: NotRequired[FunctionCallAnswer]


class ChatChoice(TypedDict):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """The answer, if it is not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(TypedDict):
    """Part of one of the `n` answers."""

    index: int
    delta: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(TypedDict):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]


class Model(TypedDict):
    """The served model. `max_model_len`, vLLM's field, is the limit on prompt and answer together, in tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(TypedDict):
    """The list of served models."""

    object: Literal["list"]
    data: list[Model]
