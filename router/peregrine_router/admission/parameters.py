"""What a request may say of its generation, in TGI's names: every API translates into these."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from peregrine_router.admission.grammar_schema import GrammarSpec

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
