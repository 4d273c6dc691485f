"""The model families by `model_type`. Imports no torch, and a family only when it is asked for.

A family outside of this package is an entry point of the group `peregrine.model_families`: its name is the model_type,
its value a `Family`, as in `[project.entry-points."peregrine.model_families"] mine = "my_package.family:FAMILY"`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from peregrine_server.models.errors import AGAIN, ConfigError, UnsupportedModel
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightFormat, WeightKernels
from peregrine_server.models.formats.registry import stored_format
from peregrine_server.models.interface import (
    Family,
    Footprint,
    Layout,
    Model,
    ModelConfig,
    ModelContext,
    SourceCheckpoint,
)
from peregrine_server.models.loading.gguf_header import ARCHITECTURE_KEY, GgufHeader, check_architecture
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
GGUF_FAMILIES = {"falcon": "peregrine_server.models.falcon.gguf"}
"""general.architecture of a GGUF file -> the module whose `hf_config` reads it."""
SETTINGS = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files that older tools wrote beside config.json instead of its `quantization_config` -> its quant_method."""


def load_config(path: Path, overrides: Mapping[str, Any] = MappingProxyType({})) -> ModelConfig:
    """Reads `path`/config.json, whose values `overrides` replace.

    Raises ConfigError or UnsupportedModel, one line each.
    """
    file = path / "config.json"
    hf = {**_read(file), **overrides}
    try:
        return family_of(hf).config(hf)
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{file}: {error}") from None


def gguf_config(headers: Sequence[GgufHeader], beside: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of the model in a set of GGUF files; `beside`: what such a file beside them says, which counts.

    Raises ConfigError or UnsupportedModel, one line each.
    """
    metadata = headers[0].metadata
    check_architecture(headers[0].path, metadata, GGUF_FAMILIES)
    try:
        found: dict[str, Any] = import_module(GGUF_FAMILIES[str(metadata[ARCHITECTURE_KEY])]).hf_config(headers)
        hf = {**found, **beside, "quantization_config": found.get("quantization_config")}
        family_of(hf).config(hf)
        stored_format(hf["quantization_config"], None)
    except (ConfigError, UnsupportedModel) as error:
        raise type(error)(f"{headers[0].path}: {error}") from None
    return hf


def load_format(path: Path, quantize: str | None, kernels: WeightKernels = ALL_KERNELS) -> WeightFormat:
    """The format of the weights in directory `path`: as they are quantized there, else as --quantize says.

    Raises ConfigError, UnsupportedModel, ValueError or UnsupportedWeight, one line each.
    """
    file, quantization = _quantization(path)
    try:
        return stored_format(quantization, quantize, kernels)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{file}: {error}") from None


def load_model(path: Path, config: ModelConfig, context: ModelContext, progress: Progress | None = None) -> Model:
    """Loads this rank's share of the model in directory `path`, whose `load_config` is `config`.

    Raises CheckpointError.
    """
    return family_of(_read(path / "config.json")).load(path, config, context, progress)


def open_checkpoint(path: Path, config: ModelConfig) -> AbstractContextManager[SourceCheckpoint]:
    """Opens the floating-point weights in directory `path`, to write them in another format. Raises CheckpointError."""
    return family_of(_read(path / "config.json")).open(path, config)


def footprint(path: Path, config: ModelConfig, layout: Layout) -> Footprint:
    """The bytes of that model on one rank."""
    return family_of(_read(path / "config.json")).footprint(config, layout)


def family_of(hf: Mapping[str, Any]) -> Family:
    """The family of a config.json; of an unknown one the family that says what is supported."""
    model_type = str(hf.get("model_type"))
    if model_type not in FAMILIES:
        plugged: Family | None = plugin(ENTRY_POINTS, model_type)
        if plugged is not None:
            return plugged
    family: Family = import_module(FAMILIES.get(model_type, FAMILIES[DEFAULT_FAMILY])).FAMILY
    return family


def published_models() -> dict[str, Mapping[str, Any]]:
    """Names of the hub -> config.json of the models that are known without a download."""
    families = (import_module(module).FAMILY for module in dict.fromkeys(FAMILIES.values()))
    return {name: hf for family in families for name, hf in family.published.items()}


def _quantization(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The file that says how the weights in directory `path` are quantized, and what it says; None: they are not."""
    file = path / "config.json"
    quantization = _read(file).get("quantization_config")
    if quantization is not None and not isinstance(quantization, dict):
        raise ConfigError(f"{file}: quantization_config must be an object, not {quantization!r:.80}")
    if quantization is None:
        for name, method in SETTINGS.items():
            if (path / name).exists():
                return path / name, {"quant_method": method, **_read(path / name)}
    return file, quantization


def _read(file: Path) -> dict[str, Any]:
    try:
        hf = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist: give the directory of a downloaded model") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid JSON ({error}): {AGAIN}") from None
    if not isinstance(hf, dict):
        raise ConfigError(f"{file} must hold a JSON object, not a {type(hf).__name__}")
    return hf
