"""The cost of verifying draft tokens, from the times of steps."""

from random import Random

import pytest

from peregrine_router.scheduling.draft_cost import VerificationCostModel


def observed(fixed: float, each: float, counts: list[int], noise: float = 0.0) -> VerificationCostModel:
    """A model of steps of 10 ms for two decodes, every second one with draft tokens, their numbers in turn."""
    cost, random = VerificationCostModel(), Random(0)
    for number in range(400):
        count = counts[number // 2 % len(counts)] if number % 2 else 0
        taken = 0.01 * (1 + (fixed + each * count if count else 0.0))
        cost.observe(2, count, taken * (1 + noise * random.random()))
    return cost


@pytest.mark.parametrize(("fixed", "each"), [(0.0, 0.0), (0.3, 0.02), (0.05, 0.2), (0.4, 0.0)])
def test_it_is_what_steps_took(fixed: float, each: float) -> None:
    """Both parts are found if steps have now few draft tokens and now many."""
    assert observed(fixed, each, [1, 4, 8]).predict(2) == pytest.approx((fixed, each), abs=1e-3)


def test_steps_of_one_kind_say_what_they_say() -> None:
    """With the same number of draft tokens in all steps, the sum is known."""
    fixed, each = observed(0.2, 0.05, [6]).predict(2)
    assert fixed + 6 * each == pytest.approx(0.5, abs=1e-3)


def test_times_that_vary() -> None:
    """With times that vary by half, the estimate is off by a tenth of a step at most."""
    fixed, each = observed(0.3, 0.05, [1, 8], noise=0.5).predict(2)
    for count in (1, 8):
        assert fixed + each * count == pytest.approx(0.3 + 0.05 * count, abs=0.1)


def test_a_step_that_was_held_up_changes_little() -> None:
    """One that takes a second among steps of 10 ms."""
    cost = observed(0.2, 0.05, [1, 8])
    cost.observe(2, 4, 1.0)
    fixed, each = cost.predict(2)
    assert fixed + 4 * each < 0.7


def test_before_anything_is_observed() -> None:
    """Neither free nor too dear to be tried, for any number of decodes."""
    cost = observed(0.0, 0.0, [4])
    fixed, each = cost.predict(3)
    assert 0.0 < fixed + each < 0.5
    cost.observe(3, 4, 1.0)  # nothing to compare with
    assert cost.predict(3) == (fixed, each)
