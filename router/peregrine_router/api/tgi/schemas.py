"""The bodies of the TGI routes. Requests are pydantic models; answers are dictionaries, encoded as they are.

What is made for every token, `Token` and `StreamEvent`, is a msgspec struct, encoded in half the time of a dictionary.
pydantic, which documents answers, knows no structs: `documented` shows it a TypedDict of the same fields.
"""

from typing import Annotated, Any, Literal, NotRequired, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.request import FinishReason, Token


class GenerateRequest(BaseModel):
    """A prompt and generation parameters."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    inputs: str = Field(description="The prompt.", examples=["My name is Olivier and I"])
    parameters: GenerateParameters | None = Field(
        None, description="If left out, tokens are sampled; if given without `do_sample`, decoding is greedy."
    )


class CompatGenerateRequest(GenerateRequest):
    """A `GenerateRequest` that chooses between a whole answer and a stream."""

    stream: bool = Field(False, description="Answer like POST /generate_stream.")


def documented(struct: type[msgspec.Struct], name: str, description: str) -> GetPydanticSchema:
    """Describes a struct to pydantic as JSON of that name. A field `X | UnsetType` is an X that may be left out."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        may_be_unset = field.default is msgspec.UNSET
        fields[field.name] = NotRequired[get_args(field.type)[0]] if may_be_unset else field.type
    make_typed_dict: Any = TypedDict  # mypy accepts literals only.
    shown = make_typed_dict(name, fields)
    shown.__doc__ = description
    return GetPydanticSchema(lambda _struct, handler: handler(shown))


TokenJson = Annotated[Token, documented(Token, "TokenFields", "A token.")]


class PrefillToken(TypedDict):
    """A token of the prompt. The first one has no log-probability."""

    id: int
    text: str
    logprob: float | None


class Sequence(TypedDict):
    """Details of one generated sequence."""

    finish_reason: FinishReason
    generated_tokens: int
    cached_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[TokenJson]
    top_tokens: NotRequired[list[tuple[TokenJson, ...]]]


class BestOfSequence(Sequence):
    """One of the `best_of` sequences that were not the best."""

    generated_text: str


class Details(Sequence):
    """Details of the generation. `seed` is null for greedy decoding."""

    best_of_sequences: NotRequired[list[BestOfSequence]]


class GenerateResponse(TypedDict):
    """The generated text, with `details` only if requested."""

    generated_text: str
    details: NotRequired[Details]


class StreamDetails(TypedDict):
    """Details of the generation."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int
    cached_tokens: int


class StreamEvent(msgspec.Struct, gc=False):
    """One event of a stream. The last one has the whole generated text."""

    index: int
    token: TokenJson
    generated_text: str | None = None
    details: StreamDetails | None = None
    top_tokens: tuple[TokenJson, ...] | msgspec.UnsetType = msgspec.UNSET


StreamResponse = Annotated[StreamEvent, documented(StreamEvent, "StreamResponse", StreamEvent.__doc__ or "")]


class SimpleToken(TypedDict):
    """A token of a text, with its byte offsets into the UTF-8."""

    id: int
    text: str
    start: int
    stop: int


class ChatTokenizeResponse(TypedDict):
    """The prompt that a chat is rendered to, and its tokens."""

    tokenize_response: list[SimpleToken]
    templated_text: str


class CancelResponse(TypedDict):
    """The id of a cancelled request."""

    id: str
    cancelled: Literal[True]


class Info(TypedDict):
    """The model and the server's limits. `version` is TGI's, `model_sha` the commit of the weights if it is known."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_device_type: str
    model_pipeline_tag: str | None
    num_shard: int
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    max_client_batch_size: int
    max_batch_total_tokens: int
    max_batch_size: int | None
    max_top_n_tokens: int
    validation_workers: int
    router: Literal["peregrine"]
    version: str
    peregrine_version: str
    sha: str | None
    docker_label: str | None
