"""The table of sampling parameters."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.parameters import (
    PARAMETERS,
    Parameter,
    has_warper,
    implies_sampling,
    range_rules,
    sampling_values,
)
from peregrine_router.api.openai.schemas import ChatRequest, CompletionRequest
from peregrine_router.request import SamplingParams

TOY = Path(__file__).with_name("toy_parameter.py")
NOT_IN_THE_TABLE = {
    "do_sample",
    "seed",
    "logprobs",
    "top_n_tokens",
    "prompt_logprobs",
    "logit_bias",
    "min_tokens",
    "end_token_ids",
    "grammar",
}
"""Fields of `SamplingParams` that the validator works out from more than one parameter's value."""


def parameters(**given: Any) -> GenerateParameters:
    return GenerateParameters(**given)


def test_a_new_parameter_is_one_row() -> None:
    """A row added to the table is documented and accepted by both APIs, bounded by its range and sent to the shards."""
    environment = {"PYTHONPATH": ":".join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))}
    done = subprocess.run(
        [sys.executable, TOY], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "statuses": [200, 422, 200, 200, 400],
        "refusal": "Input validation error: `toy` must be >= 0.0 and <= 1.0",
        "sampled": [0.25, 0.0, 0.5],
        "documented": ["ChatRequest", "CompletionRequest", "GenerateParameters", "ResponseRequest"],
    }


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: row.name)
def test_every_row_is_a_field_of_the_shards_message(row: Parameter) -> None:
    """Each row names a field of `SamplingParams` whose default is the row's `off`."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(SamplingParams)}
    assert defaults[row.name] == row.off


def test_every_field_of_the_shards_message_is_set() -> None:
    """A field of `SamplingParams` is a row of the table or one of those that the validator sets itself."""
    names = {field.name for field in msgspec.structs.fields(SamplingParams)}
    assert names == {row.name for row in PARAMETERS} | NOT_IN_THE_TABLE


@pytest.mark.parametrize("model", [GenerateParameters, CompletionRequest, ChatRequest])
def test_every_api_has_every_row(model: type[BaseModel]) -> None:
    """The request bodies of TGI's and OpenAI's routes have a field for each row, with its example."""
    properties = model.model_json_schema()["properties"]
    assert {row.name for row in PARAMETERS} <= properties.keys()
    assert all(properties[row.name]["examples"] == [row.example] for row in PARAMETERS if row.name != "temperature")


def test_values_of_the_rows() -> None:
    """Parameters that are left out, or null, reach the shards as their `off`; the others as they are."""
    values = sampling_values(parameters(top_p=0.5, top_k=None, watermark=True))
    off = {row.name: row.off for row in PARAMETERS}
    assert values == {**off, "top_p": 0.5, "watermark": True}


def test_ranges_are_checked_in_the_order_of_the_table() -> None:
    """If two parameters are out of range, the earlier row is reported first."""
    broken = [text for is_broken, text in range_rules(parameters(min_p=2.0, temperature=-1.0)) if is_broken]
    assert broken == ["`temperature` must be strictly positive", "`min_p` must be >= 0.0 and <= 1.0"]


@pytest.mark.parametrize("row", [row for row in PARAMETERS if row.turns_sampling_on], ids=lambda row: row.name)
def test_off_does_not_turn_sampling_on(row: Parameter) -> None:
    """A warper that is given but off counts for `best_of`, and leaves decoding greedy."""
    given = parameters(**{row.name: row.off})
    assert has_warper(given)
    assert not implies_sampling(given)
    assert implies_sampling(parameters(**{row.name: row.example}))
