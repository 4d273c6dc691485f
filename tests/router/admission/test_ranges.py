"""Range checks of numbers."""

import pytest

from peregrine_router.admission.ranges import RangeCheck, positive, probability_mass, unbounded, within

SMALLEST_FLOAT32 = 1e-45


@pytest.mark.parametrize(
    ("check_range", "value"),
    [
        (positive, SMALLEST_FLOAT32),
        (positive, 3.4e38),
        (probability_mass, SMALLEST_FLOAT32),
        (probability_mass, 1.0),
        (within(-2.0, 2.0), -2.0),
        (within(-2.0, 2.0), 2.0),
        (unbounded, float("-inf")),
    ],
)
def test_bounds_are_accepted(check_range: RangeCheck, value: float) -> None:
    """Values on the bounds break no rule."""
    assert not any(is_broken for is_broken, _ in check_range("x", value))


@pytest.mark.parametrize(
    ("check_range", "value", "message"),
    [
        (positive, 0.0, "`x` must be strictly positive"),
        (positive, 1e-50, "`x` must be strictly positive"),
        (positive, 1e39, "`x` is too large"),
        (probability_mass, 1e-50, "`x` must be > 0.0 and < 1.0"),
        (probability_mass, 1.01, "`x` must be > 0.0 and < 1.0"),
        (within(0.0, 1.0), -0.01, "`x` must be >= 0.0 and <= 1.0"),
        (within(0.0, 1.0), float("nan"), "`x` must be >= 0.0 and <= 1.0"),
    ],
)
def test_values_out_of_range_are_refused(check_range: RangeCheck, value: float, message: str) -> None:
    """The first broken rule names the parameter and its range, as float32 sees the value."""
    assert next(text for is_broken, text in check_range("x", value) if is_broken) == message
