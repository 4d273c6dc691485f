"""Items of a request's `input`: their schema, and the form in which they are stored and listed."""

import uuid
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from peregrine_router.admission.fields import Objects
from peregrine_router.api.openai.messages import TEXT_PARTS
from peregrine_router.api.openai.responses.answer_schemas import InputText, Item, OutputText, Refusal
from peregrine_router.api.openai.schemas import Body, ContentPart

ID_LENGTH = 256
"""Most characters of an id that a client gives."""
ID = Annotated[str, Field(min_length=1, max_length=ID_LENGTH)]
NEEDS = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "item_reference": ("id",),
    "reasoning": (),
}
"""Type of an item -> fields that it needs."""


def new_id(prefix: str) -> str:
    """An id that nobody can find by trial."""
    return f"{prefix}_{uuid.uuid4().hex}"


def as_items(input: Any) -> Any:
    """A list of items; text is a user's message."""
    return [{"role": "user", "content": input}] if isinstance(input, str) else input


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


def _text_only(part: ContentPart) -> ContentPart:
    """Raises PydanticCustomError for a part that the model cannot read."""
    if part.type not in TEXT_PARTS:
        message = "the model reads text only, not {type}: send text, as input_text"
        raise PydanticCustomError("unsupported", message, {"type": part.type[:64]})
    if _given_text(part) is None:
        raise PydanticCustomError("missing", "a part of the type {type} needs its text", {"type": part.type})
    return part


Part = Annotated[ContentPart, AfterValidator(_text_only)]
Parts = Annotated[Objects[Part], BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart])]


class InputItem(Body):
    """A message, a call of a function, its output, or a reference to an item of a stored response. `reasoning` is
    passed over."""

    type: str | None = Field(None, description=f"One of {', '.join(NEEDS)}.", examples=["message"])
    id: ID | None = Field(None, examples=["msg_1"])
    role: Literal["user", "assistant", "system", "developer"] | None = Field(None, examples=["user"])
    content: Parts | None = Field(None, description="Text.", examples=["What is a falcon?"])
    call_id: ID | None = Field(None, examples=["call_1"])
    name: str | None = Field(None, description="Name of the called function.", examples=["get_weather"])
    arguments: str | None = Field(None, description="Arguments of the call, as JSON.", examples=['{"city": "Paris"}'])
    output: Parts | None = Field(None, description="What the function returned.", examples=["17 °C"])

    @property
    def kind(self) -> str:
        """Its type; messages and references may leave it out."""
        return self.type or ("item_reference" if self.role is None and self.id is not None else "message")

    @model_validator(mode="after")
    def _check(self) -> Self:
        kind = self.kind
        if kind not in NEEDS:
            message = "items of the type {type} are not supported: this server runs no such tool; leave it out"
            raise PydanticCustomError("unsupported", message, {"type": kind[:64]})
        for name in NEEDS[kind]:
            if getattr(self, name) is None:
                message = "an item of the type {type} needs `{name}`"
                raise PydanticCustomError("missing", message, {"type": kind, "name": name})
        return self


def stored_form(given: InputItem) -> Item:
    """The item with an id and all fields of its type. It is no reference."""
    if given.kind == "function_call":
        return {
            "id": given.id or new_id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": given.call_id or "",
            "name": given.name or "",
            "arguments": given.arguments or "",
        }
    if given.kind == "function_call_output":
        return {
            "id": given.id or new_id("fco"),
            "type": "function_call_output",
            "status": "completed",
            "call_id": given.call_id or "",
            "output": "".join(text_of(part) for part in given.output or ()),
        }
    return {
        "id": given.id or new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": given.role or "user",
        "content": [_stored_part(part, given.role) for part in given.content or ()],
    }


def text_of(part: ContentPart) -> str:
    """Its text, or that of a refusal."""
    return _given_text(part) or ""


def _given_text(part: ContentPart) -> str | None:
    return part.refusal if part.type == "refusal" else part.text


def _stored_part(part: ContentPart, role: str | None) -> InputText | OutputText | Refusal:
    text = text_of(part)
    if part.type == "refusal":
        return {"type": "refusal", "refusal": text}
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}
