"""Typed values out of config.json, which may be damaged or hostile. Imports no torch."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from peregrine_server.models.errors import ConfigError

MAX_SIZE = 2**24
"""A bound on sizes: no published model comes near, more is a damaged or hostile file."""

_REQUIRED = object()


class ConfigReader:
    """Reads typed values of config.json under the first of several names; null counts as absent, as in transformers.

    Every method raises ConfigError with one line.
    """

    def __init__(self, hf: Mapping[str, Any]) -> None:
        self._hf = hf

    def _value(self, names: tuple[str, ...], default: Any) -> tuple[str, Any]:
        for name in names:
            if self._hf.get(name) is not None:
                return name, self._hf[name]
        if default is _REQUIRED:
            raise ConfigError(f"{names[0]} is missing")
        return names[0], default

    def size(self, *names: str, default: Any = _REQUIRED, limit: int = MAX_SIZE) -> int:
        """A count from 1 to `limit`."""
        name, value = self._value(names, default)
        if not is_int(value):
            raise ConfigError(f"{name} must be an integer, not {value!r:.80}")
        if not 0 < value <= limit:
            raise ConfigError(f"{name} must be between 1 and {limit}, not {value!r:.80}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        _, value = self._value((name,), default)
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, not {value!r:.80}")
        return value

    def text(self, name: str, default: str) -> str:
        """A string."""
        _, value = self._value((name,), default)
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a string, not {value!r:.80}")
        return value

    def positive(self, name: str, default: float) -> float:
        """A finite number above 0."""
        _, value = self._value((name,), default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ConfigError(f"{name} must be a positive number, not {value!r:.80}")
        return float(value)


def is_int(value: object) -> TypeGuard[int]:
    """Whether it is an integer; JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)
