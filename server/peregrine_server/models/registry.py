"""The model families by `model_type`. Imports no torch, and a family only when it is asked for.

A family outside of this package is an entry point of the group `peregrine.model_families`: its name is the model_type,
its value a `Family`, as in `[project.entry-points."peregrine.model_families"] mine = "my_package.family:FAMILY"`.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peregrine_server.models.errors import ConfigError, UnsupportedModel
from peregrine_server.models.formats.interface import WeightFormat
from peregrine_server.models.interface import Family, Model, ModelConfig, ModelContext
from peregrine_server.models.plugins import plugin

if TYPE_CHECKING:
    from peregrine_server.models.loading.weights import Progress

FAMILIES = {
    "falcon": "peregrine_server.models.falcon.family",
    "RefinedWeb": "peregrine_server.models.falcon.family",
    "RefinedWebModel": "peregrine_server.models.falcon.family",
}
"""model_type -> the module whose FAMILY it is."""
DEFAULT_FAMILY = "falcon"
"""The family that explains to the operator why it does not take an unknown model_type."""
ENTRY_POINTS = "peregrine.model_families"


def load_config(path: Path) -> ModelConfig:
    """Reads `path`/config.json. Raises ConfigError or UnsupportedModel, one line each."""
    file = path / "config.json"
    hf = _read(file)
    try:
        return _family_of(hf).config(hf)
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{file}: {error}") from None


def load_model(path: Path, config: ModelConfig, context: ModelContext, progress: Progress | None = None) -> Model:
    """Loads this rank's share of the model in directory `path`, whose `load_config` is `config`.

    Raises CheckpointError.
    """
    return _family_of(_read(path / "config.json")).load(path, config, context, progress)


def weight_bytes(path: Path, config: ModelConfig, num_ranks: int, dtype: str, format: WeightFormat) -> int:
    """Bytes of one rank's weights of that model in `dtype` ("bfloat16", ...), its linears in `format`."""
    return _family_of(_read(path / "config.json")).weight_bytes(config, num_ranks, dtype, format)


def _family_of(hf: dict[str, Any]) -> Family:
    model_type = str(hf.get("model_type"))
    if model_type not in FAMILIES:
        plugged: Family | None = plugin(ENTRY_POINTS, model_type)
        if plugged is not None:
            return plugged
    family: Family = import_module(FAMILIES.get(model_type, FAMILIES[DEFAULT_FAMILY])).FAMILY
    return family


def _read(file: Path) -> dict[str, Any]:
    try:
        hf = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist: give the directory of a downloaded model") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid JSON ({error}): download it again") from None
    if not isinstance(hf, dict):
        raise ConfigError(f"{file} must hold a JSON object, not a {type(hf).__name__}")
    return hf
