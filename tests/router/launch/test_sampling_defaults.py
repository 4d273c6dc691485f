"""Sampling defaults of OpenAI's routes, from generation_config.json and the options that replace it."""

import json
from pathlib import Path
from typing import Any

import pytest

from peregrine_router.launch.sampling_defaults import sampling_defaults
from peregrine_router.settings import Settings

CONTENT = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}


def write(path: Path, content: dict[str, Any]) -> Path:
    (path / "generation_config.json").write_text(json.dumps(content))
    return path


def test_the_file_of_the_model_counts(tmp_path: Path) -> None:
    """Its sampling parameters and the length; no other field, and none that is null. A model without one has none."""
    assert sampling_defaults(Settings(), tmp_path) == {}
    others = {"eos_token_id": 11, "do_sample": False, "max_length": 20, "typical_p": 0.2, "num_beams": 4}
    write(tmp_path, {**CONTENT, **others, "max_new_tokens": 200})
    assert sampling_defaults(Settings(), tmp_path) == {**CONTENT, "max_new_tokens": 200}
    write(tmp_path, dict.fromkeys(CONTENT))
    assert sampling_defaults(Settings(), tmp_path) == {}


def test_the_options_replace_it(tmp_path: Path) -> None:
    """Another folder's file, none of them, and values of the operator's own."""
    write(tmp_path, CONTENT)
    (tmp_path / "other").mkdir()
    other = str(write(tmp_path / "other", {"top_k": 3}))
    assert sampling_defaults(Settings(generation_config="vllm"), tmp_path) == {}
    assert sampling_defaults(Settings(generation_config=other), tmp_path) == {"top_k": 3}
    override = '{"top_p": 0.5, "max_new_tokens": 9}'
    overridden = sampling_defaults(Settings(override_generation_config=override), tmp_path)
    assert overridden == {**CONTENT, "top_p": 0.5, "max_new_tokens": 9}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", -1, "`temperature` must be strictly positive. Given: -1"),
        ("temperature", "0.7", "`temperature` cannot be '0.7'"),
        ("temperature", float("nan"), "`temperature` cannot be nan"),
        ("top_p", 2, "`top_p` must be > 0.0 and < 1.0. Given: 2"),
        ("top_k", 2.5, "`top_k` cannot be 2.5"),
        ("min_p", [0.1], "`min_p` cannot be [0.1]"),
        ("repetition_penalty", True, "`repetition_penalty` cannot be True"),
        ("max_new_tokens", 0, "`max_new_tokens` must be strictly positive. Given: 0"),
    ],
)
def test_a_wrong_value(
    name: str, value: object, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the file it is a warning, and the others count: the operator did not write it. In the option it is an error,
    which the operator can mend."""
    write(tmp_path, {**CONTENT, name: value})
    others = {other: each for other, each in CONTENT.items() if other != name}
    assert sampling_defaults(Settings(), tmp_path) == others
    ignored = f"generation_config.json: {message}; it is ignored: set it with --override-generation-config"
    assert caplog.messages == [ignored]
    with pytest.raises(ValueError, match=r"^--override-generation-config: ") as raised:
        sampling_defaults(Settings(override_generation_config=json.dumps({name: value})), tmp_path)
    assert str(raised.value) == f"--override-generation-config: {message}"


def test_values_that_mean_off_count(tmp_path: Path) -> None:
    """A temperature of 0 for greedy decoding, and a top_k of 0 or -1, are what clients of these routes send too."""
    for content in ({"temperature": 0.0, "top_k": 0}, {"temperature": 0, "top_k": -1, "top_p": 1.0, "min_p": 0}):
        assert sampling_defaults(Settings(), write(tmp_path, content)) == content


@pytest.mark.parametrize("option", ["0.7", "[]", "{", "null", "{'top_p': 0.9}", "[" * 100_000])
def test_an_override_that_is_no_object(option: str, tmp_path: Path) -> None:
    """One line shows the form."""
    with pytest.raises(ValueError, match="must be a JSON object, as"):
        sampling_defaults(Settings(override_generation_config=option), tmp_path)


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    """A mistyped parameter or folder does not pass in silence."""
    with pytest.raises(ValueError, match=r"temprature is not one of temperature, top_p, top_k"):
        sampling_defaults(Settings(override_generation_config='{"temprature": 1}'), tmp_path)
    with pytest.raises(ValueError, match="`vllm` is for no defaults"):
        sampling_defaults(Settings(generation_config="none"), tmp_path)
