"""Request bodies of POST /v1/responses, as pydantic models. Fields that ask for what this server lacks are refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from peregrine_router.admission.fields import Items, Objects, at_most
from peregrine_router.admission.generate_parameters import U32, CommonParameters
from peregrine_router.admission.parameters import optional
from peregrine_router.api.openai.responses.input_items import InputItem, as_items
from peregrine_router.api.openai.schemas import Body, Function, Seed

LOGPROBS = "message.output_text.logprobs"
"""The value of `include` that asks for log-probabilities."""
UNSUPPORTED = {
    "background": "leave it out, and use `stream` to see the response grow",
    "conversation": "use `previous_response_id`, or send the conversation as `input`",
    "prompt": "no prompt templates are kept here: send the text as `instructions` and `input`",
}
"""Field -> what to do instead."""
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class FunctionTool(Function):
    """A function that the model may call. Tools that OpenAI itself runs are refused."""

    type: Literal["function"] = "function"

    @model_validator(mode="before")
    @classmethod
    def _refuse_others(cls, given: Any) -> Any:
        type = given.get("type", "function") if isinstance(given, dict) else "function"
        if type != "function":
            message = "tools of the type {type} are not supported; declare a `function` and run it in your client"
            raise PydanticCustomError("unsupported", message, {"type": str(type)[:64]})
        return given


class ToolName(Body):
    """One of the allowed tools."""

    type: Literal["function"] = Field("function", description="Only functions are supported.")
    name: str = Field(examples=["get_weather"])


class ResponseToolChoice(Body):
    """The function that must be called, or the tools that may be."""

    type: Literal["function", "allowed_tools"] = Field(description="Only functions are supported.")
    name: str | None = Field(None, description="With the type function: its name.", examples=["get_weather"])
    mode: Literal["auto", "required"] = Field("auto", description="With allowed_tools: whether one must be called.")
    tools: Objects[ToolName] | None = Field(None, description="With allowed_tools: these tools, at least one.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "function" and self.name is None:
            raise PydanticCustomError("missing", "a choice of the type function needs a `name`")
        if self.type == "allowed_tools" and not self.tools:
            raise PydanticCustomError("missing", "a choice of the type allowed_tools needs at least one of `tools`")
        return self


class TextFormat(Body):
    """The form of the text."""

    type: Literal["text", "json_object", "json_schema"] = Field(examples=["json_schema"])
    name: str | None = Field(None, examples=["person"])
    description: str | None = Field(None, examples=["A person"])
    schema_: dict[str, Any] | None = Field(None, alias="schema", examples=[{"type": "object"}])
    strict: bool | None = Field(
        None, description="Refuse keywords that cannot be enforced, such as `uniqueItems`, instead of ignoring them."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None:
            raise PydanticCustomError("missing", "a format of the type json_schema needs a `schema`")
        return self


class TextConfig(Body):
    """Options of the text."""

    format: TextFormat | None = Field(None, description="text, unless given.")


class ResponseRequest(CommonParameters):
    """The input of a response and how to generate it. Parameters of `CommonParameters` go beyond OpenAI's."""

    input: Annotated[Objects[InputItem], BeforeValidator(as_items, json_schema_input_type=str | list[InputItem])] = (
        Field(
            min_length=1,
            description="A user's message, or the items of a conversation.",
            examples=["What is a falcon?"],
        )
    )
    model: str | None = optional("Any name; the answer repeats it.", "tgi")
    instructions: str | None = optional("System message in front of the conversation.", "Answer in one sentence.")
    previous_response_id: str | None = optional(
        "Id of a stored response: its input and output come before `input`, its instructions do not.", None
    )
    store: bool | None = optional("false: do not keep the response for `previous_response_id` and GET.", True)
    stream: bool | None = optional("Stream the response as typed server-sent events.", False)
    max_output_tokens: U32 | None = optional("Maximum number of tokens to generate. Not set: as many as fit.", 20)
    seed: Seed | None = optional("Seed of sampling: the same seed gives the same tokens. Not set: random.", 42)
    truncation: Literal["auto", "disabled"] | None = optional(
        "auto: drop the oldest turns of a conversation that does not fit; disabled: refuse it.", "disabled"
    )
    text: TextConfig | None = optional("Form of the text.", {"format": {"type": "json_object"}})
    tools: Objects[FunctionTool] | None = optional("Functions that the model may call.", [])
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = optional(
        "auto: the model may call tools; required: it must call one; none: it must not; an object: a function that it "
        "must call, or the tools that are allowed.",
        "auto",
    )
    parallel_tool_calls: bool | None = optional(
        "false: a response has one call at most; true: one that must call tools may call several.", True
    )
    include: Items[str] | None = optional(f"{LOGPROBS}: with log-probabilities. Others are ignored.", [LOGPROBS])
    top_logprobs: U32 | None = optional("With log-probabilities: also of this many most probable tokens.", 2)
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16), at_most(16)] | None = optional(
        "Repeated in the answer.", {}
    )
    max_tool_calls: U32 | None = optional("Ignored: it limits the tools that OpenAI runs.", None)
    reasoning: dict[str, Any] | None = optional("Ignored: the model does not reason.", None)
    service_tier: str | None = optional("Ignored.", "auto")
    stream_options: dict[str, Any] | None = optional("Ignored.", None)
    user: str | None = optional("Repeated in the answer.", "alice")
    safety_identifier: str | None = optional("Repeated in the answer.", "alice")
    prompt_cache_key: str | None = optional("Repeated in the answer; prompts are cached without it.", "chat-1")
    background: bool | None = optional("Not supported.", False)
    conversation: Any = optional("Not supported.", None)
    prompt: Any = optional("Not supported.", None)

    @property
    def has_logprobs(self) -> bool:
        """Whether the answer has log-probabilities."""
        return LOGPROBS in (self.include or ())

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _refuse_hosted_tools(cls, given: Any) -> Any:
        type = given.get("type") if isinstance(given, dict) else None
        if type not in (None, "function", "allowed_tools"):
            message = "a choice of the type {type} is not supported; choose a `function`, or allowed_tools"
            raise PydanticCustomError("unsupported", message, {"type": str(type)[:64]})
        return given

    @field_validator(*UNSUPPORTED)
    @classmethod
    def _refuse_unsupported(cls, given: Any, info: ValidationInfo) -> Any:
        if given:
            about = {"instead": UNSUPPORTED[info.field_name or ""]}
            raise PydanticCustomError("unsupported", "this is not supported; {instead}", about)
        return given
