"""The parameters of a request in TGI's names: every API translates into `GenerateParameters`."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from peregrine_router.admission.fields import Items, LogitBias
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.admission.parameters import PARAMETERS, optional, pydantic_fields

U32 = Annotated[int, Field(ge=0, lt=2**32)]
U64 = Annotated[int, Field(ge=0, lt=2**64)]
MAX_TIMEOUT = 86_400.0
"""Seconds: a day."""
Timeout = Annotated[float, Field(gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-100, le=100)]
SAMPLING_NAMES = ", ".join(f"`{row.name}`" for row in PARAMETERS if row.turns_sampling_on)
Model = TypeVar("Model", bound=BaseModel)


def with_sampling_parameters(model: type[Model]) -> type[Model]:
    """Adds a field for each row of the table of sampling parameters."""
    return create_model(
        model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **pydantic_fields()
    )


@with_sampling_parameters
class CommonParameters(BaseModel):
    """Parameters that TGI's and OpenAI's routes have in common. Null means not set; unknown names are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    logit_bias: LogitBias | None = optional(
        "Map from token id to the bias added to its logit, -100 to 100.", {"42": -100}
    )
    min_tokens: U32 | None = optional("Mask end-of-text and stop tokens until this many tokens are generated.", 5)
    stop_token_ids: Items[U32] | None = optional("Stop after any of these tokens.", [11])
    ignore_eos: bool | None = optional("Continue after an end-of-text token.", False)
    priority: Priority | None = optional("Among one client's waiting requests, higher priorities run first.", 0)
    timeout: Timeout | None = optional("Seconds after which an incomplete request ends with an error.", 30.0)


class GenerateParameters(CommonParameters):
    """Generation parameters. Unknown names are ignored."""

    best_of: U64 | None = optional(
        "Generate this many sequences and return the one with the highest mean log-probability. Needs sampling.", 1
    )
    do_sample: bool | None = optional(f"Sample instead of greedy decoding. Implied by {SAMPLING_NAMES}.", True)
    max_new_tokens: U32 | None = optional("Maximum number of tokens to generate. Not set: as many as fit.", 20)
    return_full_text: bool | None = optional("Prepend the prompt to the generated text.", False)
    stop: Items[str] | None = optional("Stop after any of these texts, which stays in the generated text.", ["\nUser:"])
    truncate: U64 | None = optional("Keep only the last n tokens of the prompt.", 1000)
    details: bool | None = optional("Return `details`.", True)
    decoder_input_details: bool | None = optional("Return the prompt's tokens and log-probabilities.", False)
    seed: U64 | None = optional("Seed of sampling: the same seed gives the same tokens. Not set: random.", 42)
    top_n_tokens: U32 | None = optional("Return the n most probable tokens at each position.", 5)
    grammar: GrammarSpec | None = optional(
        "Grammar that the generated text follows.", {"type": "regex", "value": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}
    )
    adapter_id: str | None = optional("Not supported.", None)
