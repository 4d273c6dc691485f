"""Range checks of a number in TGI's wording. A rule is (whether it is broken, what to tell the client)."""

import ctypes
from collections.abc import Callable, Iterator

Rules = Iterator[tuple[bool, str]]
RangeCheck = Callable[[str, float], Rules]
"""Maps a parameter's name and value to rules."""


def positive(name: str, value: float) -> Rules:
    """Accepts 0 < value, finite in float32."""
    yield _float32(value) <= 0.0, f"`{name}` must be strictly positive"
    yield _float32(value) == float("inf"), f"`{name}` is too large"


def probability_mass(name: str, value: float) -> Rules:
    """Accepts 0 < value <= 1. TGI refuses 1.0, which every client takes for "off", and its wording says so."""
    yield not 0.0 < _float32(value) <= 1.0, f"`{name}` must be > 0.0 and < 1.0"


def within(low: float, high: float) -> RangeCheck:
    """Accepts low <= value <= high."""

    def check_range(name: str, value: float) -> Rules:
        yield not low <= value <= high, f"`{name}` must be >= {low} and <= {high}"

    return check_range


def unbounded(name: str, value: float) -> Rules:
    """Accepts every value of the JSON type."""
    yield from ()


def _float32(value: float) -> float:
    """The value after conversion to float32 on the device: 1e-50 becomes 0, 1e39 infinity."""
    return ctypes.c_float(value).value
