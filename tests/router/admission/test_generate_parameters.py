"""JSON of the parameters of a request."""

from typing import Any

import pytest
from pydantic import ValidationError

from peregrine_router.admission.generate_parameters import CommonParameters, GenerateParameters
from peregrine_router.admission.parameters import PARAMETERS


def test_null_means_not_set() -> None:
    """Every parameter may be null, which is the same as leaving it out."""
    nulls: dict[str, Any] = dict.fromkeys(GenerateParameters.model_fields)
    assert GenerateParameters(**nulls) == GenerateParameters()


def test_the_table_is_common_to_both_apis() -> None:
    """Every row of the table of sampling parameters is a field that TGI's and OpenAI's routes have in common."""
    assert {row.name for row in PARAMETERS} < CommonParameters.model_fields.keys()


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": "1"},
        {"temperature": float("nan")},
        {"top_k": 2**31},
        {"seed": -1},
        {"seed": 2**64},
        {"timeout": 0.0},
        {"timeout": 86_401.0},
        {"priority": 101},
        {"logit_bias": {"-1": 1.0}},
        {"logit_bias": {"1": float("inf")}},
    ],
)
def test_values_outside_their_type_are_refused(given: dict[str, Any]) -> None:
    """Texts are no numbers, and numbers must fit the field's type."""
    with pytest.raises(ValidationError):
        GenerateParameters.model_validate(given)


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: row.name)
def test_documentation_names_what_implies_sampling(row: Any) -> None:
    """The description of `do_sample` lists the parameters that turn sampling on, and no others."""
    description = GenerateParameters.model_json_schema()["properties"]["do_sample"]["description"]
    assert (f"`{row.name}`" in description) == row.turns_sampling_on
