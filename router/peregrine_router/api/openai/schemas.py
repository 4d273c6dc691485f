"""Request bodies of the OpenAI routes, as pydantic models."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from peregrine_router.admission.fields import Items, Objects
from peregrine_router.admission.generate_parameters import U32, CommonParameters
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.admission.parameters import Float, optional

Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
TokenIds = Annotated[Items[U32], Field(min_length=1)]


class Body(BaseModel):
    """Base of request bodies. Null means not set; unknown names are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="Send a last chunk with `usage` and no choices.")


class OpenAiParameters(CommonParameters):
    """Parameters of completions and chat. Many of `CommonParameters` go beyond OpenAI's."""

    model: str | None = optional("Any name; the answer repeats it.", "tgi")
    max_tokens: U32 | None = optional(
        "Maximum number of tokens to generate. Not set: the model's default, else as many as fit.", 20
    )
    temperature: Float | None = optional("0 is greedy decoding. Not set: the model's default, else 1.", 0.7)
    n: U32 | None = optional("Number of answers to each prompt.", 1)
    stop: str | Items[str] | None = optional("Stop before any of these texts, which is left out.", ["\nUser:"])
    stream: bool | None = optional("Stream the answer as server-sent events.", False)
    stream_options: StreamOptions | None = optional("Only with `stream`.", {"include_usage": True})
    seed: Seed | None = optional("Seed of sampling: the same seed gives the same tokens. Not set: random.", 42)
    user: str | None = optional("Ignored.", "alice")
    response_format: GrammarSpec | None = optional("Grammar that the generated text follows.", {"type": "json_object"})


class CompletionRequest(OpenAiParameters):
    """One prompt or several, and generation parameters."""

    prompt: str | Items[str] | TokenIds | Items[TokenIds] = Field(
        description="Text or token ids, or a list of either.", examples=["My name is Olivier and I"]
    )
    suffix: str | None = optional("Not supported.", None)
    max_tokens: U32 | None = optional(
        "Maximum number of tokens to generate. Not set: the model's default, else 16.", 20
    )
    echo: bool | None = optional(
        "Prepend the prompt to the text. With `max_tokens` 0 the prompt is all, for its `logprobs`.", False
    )
    logprobs: U32 | None = optional("Return log-probabilities of the tokens and of this many most probable ones.", 1)
    best_of: U32 | None = optional("Generate this many and return the best `n`. Not with `stream`.", 1)


class ContentPart(Body):
    """Part of a message."""

    type: str = Field(description="Only text is supported, and refusals.", examples=["text"])
    text: str | None = Field(None, examples=["Hello"])
    refusal: str | None = Field(None, description="The text of a part of the type refusal.")


class FunctionCall(Body):
    """Name and arguments of a call by the assistant."""

    name: str = Field(examples=["get_weather"])
    arguments: str | dict[str, Any] = Field(examples=['{"city": "Paris"}'])


class ToolCall(Body):
    """A tool call by the assistant."""

    id: str | None = Field(None, examples=["call_1"])
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(examples=["user"])
    content: str | Objects[ContentPart] | None = Field(None, examples=["What is a falcon?"])
    name: str | None = Field(None, examples=["alice"])
    refusal: str | None = Field(None, description="The assistant's refusal, in place of `content`.")
    tool_calls: Objects[ToolCall] | None = Field(None, description="Tool calls of the assistant.")
    function_call: FunctionCall | None = Field(None, description="Older form of a single tool call.")
    tool_call_id: str | None = Field(None, examples=["call_1"])


class Function(Body):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$", examples=["get_weather"])
    description: str | None = Field(None, examples=["The weather of a city"])
    parameters: dict[str, Any] | None = Field(
        None, examples=[{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}]
    )
    arguments: dict[str, Any] | None = Field(None, description="TGI's name for `parameters`.")
    strict: bool | None = Field(
        None, description="For a call that is required: refuse keywords that cannot be enforced, such as `uniqueItems`."
    )


class Tool(Body):
    """A tool that the model may call."""

    type: Literal["function"] = "function"
    function: Function


class FunctionName(Body):
    """The name of a function."""

    name: str = Field(examples=["get_weather"])


class ToolChoice(Body):
    """The function that the model must call."""

    type: Literal["function"] = "function"
    function: FunctionName


class AllowedTools(Body):
    """The tools that may be called, out of all; `required`: one of them must be."""

    mode: Literal["auto", "required"] = "auto"
    tools: Objects[ToolChoice] = Field(min_length=1)


class AllowedToolsChoice(Body):
    """A choice of several tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class ChatRendering(Body):
    """Fields by which a client says how its chat becomes a prompt. Names and meanings are vLLM's."""

    add_generation_prompt: bool | None = optional(
        "Begin the assistant's turn. Not set: unless the last message is the assistant's, which is continued.", True
    )
    continue_final_message: bool | None = optional(
        "End the prompt within the last message, whoever's it is. Not with `add_generation_prompt`.", False
    )
    chat_template_kwargs: dict[str, Any] | None = optional(
        "Further variables of the chat template.", {"enable_thinking": False}
    )


class ChatRequest(OpenAiParameters, ChatRendering):
    """A conversation and generation parameters."""

    messages: Objects[Message] = Field(min_length=1, description="The conversation so far, oldest message first.")
    max_completion_tokens: U32 | None = optional("Newer name of `max_tokens`.", 20)
    logprobs: bool | None = optional("Return log-probabilities.", True)
    top_logprobs: U32 | None = optional("With `logprobs`: also those of this many most probable tokens.", 2)
    tools: Objects[Tool] | None = Field(None, description="Functions that the model may call.")
    tool_choice: str | ToolChoice | AllowedToolsChoice | None = optional(
        "auto: the model may call tools; required: it must call one; none: it must not; a name or object: "
        "it must call that one; an object of the type allowed_tools: as auto or required, with these tools only.",
        "auto",
    )
    functions: Objects[Function] | None = Field(None, description="Older form of `tools`.")
    function_call: str | FunctionName | None = optional("Older form of `tool_choice`, for `functions`.", "auto")
    tool_prompt: str | None = optional(
        "Instructions for tools, if the chat template does not support tools. With it, as with the model `tgi`, "
        "`tool_choice: auto` is TGI's: a call or `no_tool`, by a grammar.",
        None,
    )
    parallel_tool_calls: bool | None = optional(
        "false: an answer has one call at most; true: one that must call tools may call several.", False
    )
    modalities: Items[Literal["text"]] | None = optional("Only text is supported.", ["text"])
    audio: dict[str, Any] | None = optional("Not supported.", None)
    moderation: dict[str, Any] | None = optional("Not supported.", None)
    web_search_options: dict[str, Any] | None = optional("Not supported.", None)

    @field_validator("audio", "moderation", "web_search_options")
    @classmethod
    def _refuse(cls, given: Any) -> Any:
        """Refuses what would change the answer: a client that gets one without would not know."""
        if given is not None:
            raise PydanticCustomError("unsupported", "this is not supported; leave it out")
        return given

    @model_validator(mode="after")
    def _map_functions(self) -> Self:
        """The same with `functions` and `function_call` as `tools` and `tool_choice`. If `tools` are given, these win,
        and `functions` becomes None."""
        if self.functions is None or self.tools is not None:
            return self if self.functions is None else self.model_copy(update={"functions": None})
        tools, name = [Tool(function=function) for function in self.functions], self.function_call
        choice = ToolChoice(function=name) if isinstance(name, FunctionName) else name
        return self.model_copy(update={"tools": tools, "tool_choice": choice, "parallel_tool_calls": False})
