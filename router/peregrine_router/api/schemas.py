"""The bodies of the TGI routes. Requests are pydantic models; answers are dictionaries, encoded as they are."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.grammar_spec import GrammarSpec
from peregrine_router.request import FinishReason, Token

U32 = Annotated[int, Field(ge=0, lt=2**32)]
U64 = Annotated[int, Field(ge=0, lt=2**64)]
I32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Float = Annotated[float, Field(allow_inf_nan=False)]
MAX_TIMEOUT = 86_400.0
Timeout = Annotated[float, Field(gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-100, le=100)]
LogitBias = dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Float]


def parameter(description: str, example: Any, default: Any = None) -> Any:
    """An optional field; null is as good as leaving it out."""
    return Field(default, description=description, examples=[example])


class GenerateParameters(BaseModel):
    """How to generate. Unknown names are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    best_of: U64 | None = parameter("Generate this many sequences, answer with the likeliest. Needs sampling.", 1)
    temperature: Float | None = parameter("Above 1 flattens the distribution, below 1 sharpens it. > 0.", 0.5)
    repetition_penalty: Float | None = parameter("Above 1 makes tokens seen before less likely. > 0.", 1.03)
    frequency_penalty: Float | None = parameter("Lowers a token by this for each time it was generated. -2 to 2.", 0.1)
    presence_penalty: Float | None = parameter("Lowers a token by this once it was generated. -2 to 2.", 0.1)
    top_k: I32 | None = parameter("Sample among the k likeliest tokens. > 0.", 10)
    top_p: Float | None = parameter("Sample among the likeliest tokens that hold this probability. 1 is off.", 0.95)
    min_p: Float | None = parameter("Drop tokens less likely than this times the likeliest. 0 to 1; 0 is off.", 0.05)
    typical_p: Float | None = parameter("Locally typical sampling with this mass. 1 is off.", 0.95)
    do_sample: bool | None = parameter("Sample instead of taking the likeliest token; implied by the above.", True)
    max_new_tokens: U32 | None = parameter("Most tokens to generate. Not set: as many as there is room for.", 20)
    min_tokens: U32 | None = parameter("No end of text or stop token before this many tokens.", 5)
    return_full_text: bool | None = parameter("Put the prompt before the generated text.", False)
    stop: list[str] | None = parameter("Stop after one of these texts; it stays in the generated text.", ["\nUser:"])
    stop_token_ids: list[U32] | None = parameter("Stop after one of these tokens.", [11])
    truncate: U64 | None = parameter("Keep only the last n tokens of the prompt.", 1000)
    watermark: bool | None = parameter("Mark the text by a bias that depends on the tokens before.", False)
    details: bool | None = parameter("Answer with `details`.", True)
    decoder_input_details: bool | None = parameter("Answer with the prompt's tokens and log-probabilities.", False)
    seed: U64 | None = parameter("The same seed samples the same tokens. Not set: a random one.", 42)
    top_n_tokens: U32 | None = parameter("Show the n likeliest tokens at each step.", 5)
    logit_bias: LogitBias | None = parameter("Token id to what is added to its logit, -100 to 100.", {"42": -100})
    grammar: GrammarSpec | None = parameter(
        "What the text must conform to.", {"type": "regex", "value": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}
    )
    adapter_id: str | None = parameter("Not supported.", None)
    ignore_eos: bool | None = parameter("Go on after an end of text token.", False)
    priority: Priority | None = parameter("Of one client's waiting requests the highest is next.", 0)
    timeout: Timeout | None = parameter("Seconds until the request ends, with an error unless it is complete.", 30.0)


class GenerateRequest(BaseModel):
    """A prompt and how to continue it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    inputs: str = Field(description="The prompt.", examples=["My name is Olivier and I"])
    parameters: GenerateParameters | None = Field(
        None, description="Left out, tokens are sampled; given without `do_sample`, the likeliest token is taken."
    )


class CompatGenerateRequest(GenerateRequest):
    """The same, streamed if `stream` says so."""

    stream: bool = Field(False, description="Answer as POST /generate_stream does.")


class TokenFields(TypedDict):
    """A token as clients see it."""

    id: int
    text: str
    logprob: float | None
    special: bool


TokenJson = Annotated[Token, GetPydanticSchema(lambda _token, handler: handler(TokenFields))]
"""A `Token` in an answer; pydantic, which documents answers, does not know msgspec's types."""


class PrefillToken(TypedDict):
    """A token of the prompt; the first has no log-probability."""

    id: int
    text: str
    logprob: float | None


class Sequence(TypedDict):
    """How one generation went."""

    finish_reason: FinishReason
    generated_tokens: int
    cached_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[TokenJson]
    top_tokens: NotRequired[list[tuple[TokenJson, ...]]]


class BestOfSequence(Sequence):
    """A sequence that was not the likeliest of `best_of`."""

    generated_text: str


class Details(Sequence):
    """How the generation went. `seed` is null if nothing was sampled."""

    best_of_sequences: NotRequired[list[BestOfSequence]]


class GenerateResponse(TypedDict):
    """The generated text; `details` only if asked for."""

    generated_text: str
    details: NotRequired[Details]


class StreamDetails(TypedDict):
    """How the generation went."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int
    cached_tokens: int


class StreamResponse(TypedDict):
    """One event of a stream. The last one has the whole text."""

    index: int
    token: TokenJson
    top_tokens: NotRequired[tuple[TokenJson, ...]]
    generated_text: str | None
    details: StreamDetails | None


class SimpleToken(TypedDict):
    """A token of a text, and where it is in bytes of UTF-8."""

    id: int
    text: str
    start: int
    stop: int


class ChatTokenizeResponse(TypedDict):
    """A chat as the model is given it."""

    tokenize_response: list[SimpleToken]
    templated_text: str


class CancelResponse(TypedDict):
    """A request that was ended."""

    id: str
    cancelled: Literal[True]


class ErrorResponse(TypedDict):
    """Every error's body."""

    error: str
    error_type: str


class Info(TypedDict):
    """The model and the server's limits."""

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
    sha: str | None
    docker_label: str | None
