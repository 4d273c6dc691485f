"""Checks of what `quantization_config` says, whatever wrote it. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.loading.config_reader import is_int

MAX_GROUP = 2**24
"""A bound on sizes of groups, as `config_reader.MAX_SIZE`."""


def expect(name: str, value: object, *allowed: object) -> None:
    """Raises UnsupportedModel unless the key's value is one of those that are understood."""
    # `True == 1`, and lists are no keys: types are compared too.
    if not any(type(value) is type(each) and value == each for each in allowed):
        known = ", ".join(str(each) for each in allowed)
        raise UnsupportedModel(f"quantization_config: {name} {value!r:.80} is not supported; known are {known}")


def expect_group_size(size: object) -> None:
    """Raises UnsupportedModel unless it is the size of a group of inputs."""
    if not (is_int(size) and 0 < size <= MAX_GROUP):
        raise UnsupportedModel(f"quantization_config: group_size must be between 1 and {MAX_GROUP}, not {size!r:.80}")


def first_of(quantization: Mapping[str, Any], *names: str, default: object) -> Any:
    """The value of the first of a key's names that is there, and says something."""
    values = (quantization[name] for name in names if quantization.get(name) is not None)
    return next(values, default)


def expect_quantized(name: str, key: str, modules: object) -> None:
    """Raises UnsupportedModel if the linear `name` is among the `modules` that the key leaves unquantized."""
    for kept in modules if isinstance(modules, list) else ():
        if str(kept) in name:
            raise UnsupportedModel(
                f"quantization_config: {key} {kept!r:.80} leaves {name} in 16 bits, which is not supported; "
                "give a checkpoint with all linears quantized"
            )
