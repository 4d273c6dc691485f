"""Sampling defaults of OpenAI's routes: those of the model's generation_config.json, as vLLM takes them."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.parameters import range_rules
from peregrine_router.admission.rules import check
from peregrine_router.api.openai.parameters import OFF_VALUES
from peregrine_router.request import InvalidRequest
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer_files import read_json

FILE = "generation_config.json"
NO_FILE = "vllm"
"""Value of --generation-config for "no file", as in vLLM."""
NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""Fields that count. `do_sample` does not: clients of OpenAI's API expect sampling, but for a temperature of 0."""
log = logging.getLogger(__name__)


def sampling_defaults(settings: Settings, path: Path) -> dict[str, float]:
    """Parameter -> value where a client names none. A wrong value in the file is a warning, in the option an error.

    Raises ValueError with one line.
    """
    defaults = _fields(_content(settings.generation_config, path))
    for name, message in list(_faults(defaults)):
        log.warning("%s: %s; it is ignored: set it with --override-generation-config", FILE, message)
        del defaults[name]
    return defaults | _override(settings.override_generation_config)


def _content(option: str | None, path: Path) -> dict[str, Any]:
    if option == NO_FILE:
        return {}
    if option is not None and not (Path(option) / FILE).is_file():
        raise ValueError(f"--generation-config {option}: no folder with a {FILE}; `{NO_FILE}` is for no defaults")
    return read_json((path if option is None else Path(option)) / FILE)


def _override(option: str | None) -> dict[str, float]:
    try:
        given = json.loads(option or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ValueError(f'--override-generation-config must be a JSON object, as {{"top_p": 0.9}}. Given: {option}')
    if unknown := next((name for name in given if name not in NAMES), None):
        raise ValueError(f"--override-generation-config: {unknown} is not one of {', '.join(NAMES)}")
    overrides = _fields(given)
    for _, message in _faults(overrides):
        raise ValueError(f"--override-generation-config: {message}")
    return overrides


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in NAMES if content.get(name) is not None}


def _faults(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of values that no request could have."""
    for name, value in values.items():
        try:
            _check(name, value)
        except ValidationError:
            yield name, f"`{name}` cannot be {value!r}"
        except InvalidRequest as error:
            yield name, f"{error}. Given: {value!r}"


def _check(name: str, value: Any) -> None:
    given = GenerateParameters.model_validate({name: value})
    if value in OFF_VALUES.get(name, ()):
        return
    check(range_rules(given))
    if given.max_new_tokens == 0:
        raise InvalidRequest("`max_new_tokens` must be strictly positive")
