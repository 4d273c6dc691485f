"""The table of sampling parameters, and everything that follows from a row.

A new parameter is one row here, one field of `SamplingParams` and one processor in `peregrine_server.sampling`: both
APIs accept it, its range is checked, and it reaches the shards. For that the pydantic fields are made from the rows
(`generate_parameters.py`), so mypy does not know them: nothing names one as an attribute, all go through the functions
below. Parameters whose rules depend on the model or the server's options (`logit_bias`, `min_tokens`) or that steer the
request instead of sampling (`stop`, `timeout`, ...) are declared there as ordinary fields.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from peregrine_router.admission.ranges import RangeCheck, Rules, positive, probability_mass, unbounded, within

I32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Float = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One sampling parameter. `SamplingParams`, TGI's API and OpenAI's API use the same name for it."""

    name: str
    type: Any
    """JSON type, for pydantic. Null and a missing field both mean `off`."""
    off: float | bool
    """Value that leaves the distribution as it is; the default of the field in `SamplingParams`."""
    doc: str
    """Description in the OpenAPI document of both APIs."""
    example: Any
    range: RangeCheck = unbounded
    turns_sampling_on: bool = False
    """Whether a value other than `off` implies `do_sample` in TGI's API: it means nothing to greedy decoding."""


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "temperature",
        Float,
        off=1.0,
        doc="Divides the logits: above 1 flattens the distribution, below 1 sharpens it. > 0.",
        example=0.5,
        range=positive,
        turns_sampling_on=True,
    ),
    Parameter(
        "repetition_penalty",
        Float,
        off=1.0,
        doc="Above 1 lowers the probability of tokens of the prompt and the output. > 0.",
        example=1.03,
        range=positive,
    ),
    Parameter(
        "frequency_penalty",
        Float,
        off=0.0,
        doc="Subtracted from a token's logit for each time it was generated. -2 to 2.",
        example=0.1,
        range=within(-2.0, 2.0),
    ),
    Parameter(
        "presence_penalty",
        Float,
        off=0.0,
        doc="Subtracted once from the logit of every generated token. -2 to 2.",
        example=0.1,
        range=within(-2.0, 2.0),
    ),
    Parameter(
        "top_p",
        Float,
        off=1.0,
        doc="Nucleus sampling: keep the most probable tokens whose probabilities sum to this. 1 is off.",
        example=0.95,
        range=probability_mass,
        turns_sampling_on=True,
    ),
    Parameter(
        "typical_p",
        Float,
        off=1.0,
        doc="Locally typical sampling: keep the most typical tokens whose probabilities sum to this. 1 is off.",
        example=0.95,
        range=probability_mass,
        turns_sampling_on=True,
    ),
    Parameter(
        "top_k",
        I32,
        off=0,
        doc="Keep the k most probable tokens. > 0.",
        example=10,
        range=positive,
        turns_sampling_on=True,
    ),
    Parameter(
        "min_p",
        Float,
        off=0.0,
        doc="Drop tokens less probable than this times the most probable one. 0 to 1; 0 is off.",
        example=0.05,
        range=within(0.0, 1.0),
        turns_sampling_on=True,
    ),
    Parameter(
        "watermark",
        bool,
        off=False,
        doc="Watermark the text by a logit bias that depends on the previous token.",
        example=False,
    ),
)
"""In the order in which TGI checks them: of several faults the first is reported."""


def optional(description: str, example: Any) -> Any:
    """pydantic's field of an optional parameter; null means the same as leaving it out."""
    return Field(None, description=description, examples=[example])


def pydantic_fields() -> dict[str, Any]:
    """Definitions for `pydantic.create_model`, one for each row."""
    return {row.name: (row.type | None, optional(row.doc, row.example)) for row in PARAMETERS}


def range_rules(given: BaseModel) -> Rules:
    """Every row's range check, in the order of the table."""
    for row, value in _values(given):
        if value is not None:
            yield from row.range(row.name, value)


def has_warper(given: BaseModel) -> bool:
    """Whether a parameter that implies sampling is given, even if it is off."""
    return any(row.turns_sampling_on and value is not None for row, value in _values(given))


def implies_sampling(given: BaseModel) -> bool:
    """Whether a parameter that implies sampling is on."""
    return any(row.turns_sampling_on and value not in (None, row.off) for row, value in _values(given))


def sampling_values(given: BaseModel) -> dict[str, Any]:
    """Arguments of `SamplingParams`, one for each row."""
    return {row.name: row.off if value is None else value for row, value in _values(given)}


def _values(given: BaseModel) -> Iterator[tuple[Parameter, Any]]:
    return ((row, getattr(given, row.name)) for row in PARAMETERS)
