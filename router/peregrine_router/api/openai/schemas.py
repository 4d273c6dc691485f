"""Request bodies of the OpenAI routes, as pydantic models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from peregrine_router.admission.generate_parameters import U32, CommonParameters
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.admission.parameters import Float, optional

Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
TokenIds = Annotated[list[U32], Field(min_length=1)]


class Body(BaseModel):
    """Null is as good as leaving a field out; unknown names are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class StreamOptions(Body):
    """What a stream tells besides the text."""

    include_usage: bool | None = Field(None, description="End with a chunk that has no choices, but `usage`.")


class OpenAiParameters(CommonParameters):
    """Parameters of completions and chat. Those of `CommonParameters` go beyond OpenAI's."""

    model: str | None = optional("Any name: it is answered as it is.", "tgi")
    max_tokens: U32 | None = optional("Most tokens to generate. Not set: as many as there is room for.", 20)
    temperature: Float | None = optional("0 takes the likeliest token. Not set: 1.", 0.7)
    n: U32 | None = optional("Answers to each prompt.", 1)
    stop: str | list[str] | None = optional("Stop before one of these texts; it is left out.", ["\nUser:"])
    stream: bool | None = optional("Answer with server-sent events.", False)
    stream_options: StreamOptions | None = optional("Only with `stream`.", {"include_usage": True})
    seed: Seed | None = optional("The same seed samples the same tokens. Not set: a random one.", 42)
    user: str | None = optional("Ignored.", "alice")
    response_format: GrammarSpec | None = optional("What the text must conform to.", {"type": "json_object"})


class CompletionRequest(OpenAiParameters):
    """A prompt, or several, and how to continue."""

    prompt: str | list[str] | TokenIds | list[TokenIds] = Field(
        description="Text or token ids, or a list of either.", examples=["My name is Olivier and I"]
    )
    suffix: str | None = optional("Not supported.", None)
    echo: bool | None = optional("Put the prompt before the text.", False)
    logprobs: U32 | None = optional("Log-probabilities, and those of this many likeliest tokens.", 1)
    best_of: U32 | None = optional("Generate so many, answer with the likeliest `n`. Not with `stream`.", 1)


class ContentPart(Body):
    """A part of a message."""

    type: str = Field(description="Only text is understood.", examples=["text"])
    text: str | None = Field(None, examples=["Hello"])


class FunctionCall(Body):
    """A call that the assistant made."""

    name: str = Field(examples=["get_weather"])
    arguments: str | dict[str, Any] = Field(examples=['{"city": "Paris"}'])


class ToolCall(Body):
    """A call that the assistant made, by its id."""

    id: str | None = Field(None, examples=["call_1"])
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(examples=["user"])
    content: str | list[ContentPart] | None = Field(None, examples=["What is a falcon?"])
    name: str | None = Field(None, examples=["alice"])
    tool_calls: list[ToolCall] | None = Field(None, description="What the assistant called.")
    tool_call_id: str | None = Field(None, examples=["call_1"])


class Function(Body):
    """What the model may call; `parameters` is a JSON schema."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$", examples=["get_weather"])
    description: str | None = Field(None, examples=["The weather of a city"])
    parameters: dict[str, Any] | None = Field(
        None, examples=[{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}]
    )
    arguments: dict[str, Any] | None = Field(None, description="TGI's name for `parameters`.")


class Tool(Body):
    """A function that the model may call."""

    type: Literal["function"] = "function"
    function: Function


class FunctionName(Body):
    """A function by its name."""

    name: str = Field(examples=["get_weather"])


class ToolChoice(Body):
    """The function that is to be called."""

    type: Literal["function"] = "function"
    function: FunctionName


class ChatRequest(OpenAiParameters):
    """A conversation and how to continue it."""

    messages: list[Message] = Field(min_length=1, description="The conversation so far, the oldest first.")
    max_completion_tokens: U32 | None = optional("The newer name of `max_tokens`.", 20)
    logprobs: bool | None = optional("Answer with log-probabilities.", True)
    top_logprobs: U32 | None = optional("And those of this many likeliest tokens.", 2)
    tools: list[Tool] | None = Field(None, description="Functions that the model may call.")
    tool_choice: str | ToolChoice | None = optional(
        "auto: the model may call a tool; required: it must; none: it must not; a name, or the object: that one.",
        "auto",
    )
    tool_prompt: str | None = optional("How tools are explained to a model whose chat template knows none.", None)
    parallel_tool_calls: bool | None = optional("Ignored: one call at a time.", False)
