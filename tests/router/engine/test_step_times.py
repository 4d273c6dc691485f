"""Estimates of step times."""

from peregrine_router.engine.step_times import StepTimes


def test_without_observations_nothing_is_too_late() -> None:
    """No step, no claim; nor does a large step say how long a small one takes."""
    times = StepTimes()
    assert times.lower_bound(100) == 0.0
    times.observe(400, 2.0)
    assert times.lower_bound(100) == 0.0


def test_a_step_is_not_faster_than_a_smaller_one() -> None:
    """The fastest step of each smaller size is a floor, the slow ones are not."""
    times = StepTimes()
    for seconds in (0.5, 0.1, 0.9):
        times.observe(1, seconds)
    times.observe(60, 0.3)
    assert times.lower_bound(100) == 0.3
    assert times.lower_bound(30) == 0.1
    assert times.lower_bound(60) == 0.3


def test_a_smaller_step_does_not_take_less_for_each_token() -> None:
    """A quarter fewer tokens of a similar size save a quarter of the time at most."""
    times = StepTimes()
    times.observe(100, 1.0)
    assert times.lower_bound(75) == 0.75


def test_old_steps_are_forgotten() -> None:
    """A machine that was fast once does not keep the promise."""
    times = StepTimes()
    times.observe(1, 0.001)
    for _ in range(16):
        times.observe(1, 0.1)
    assert times.lower_bound(1) == 0.1


def test_observed_steps_say_how_much_another_computes_in_time() -> None:
    """By those of about its size, which pay more for a token than larger ones; the smallest say nothing of it."""
    times = StepTimes()
    times.observe(1, 0.1)
    assert times.num_within(0.4) is None
    times.observe(512, 2.56)
    assert times.num_within(0.4) == 80
    times.observe(64, 0.4)
    assert times.num_within(0.4) == 64
    times.observe(512, 25.6)
    assert times.num_within(0.4) == 64


def test_a_slow_step_is_believed_until_a_larger_one_is_faster() -> None:
    """The first step on a GPU compiles its kernels, and may be the only one of its size for a long time."""
    times = StepTimes()
    times.observe(17, 1.8)
    assert times.lower_bound(256) == 1.8
    times.observe(256, 0.004)
    assert times.lower_bound(256) == 0.004
    assert times.lower_bound(17) == 0.004


def test_a_larger_step_pays_no_more_for_a_token_than_a_smaller_one() -> None:
    """However slow the only one of its size was."""
    times = StepTimes()
    times.observe(600, 6.0)
    times.observe(64, 0.064)
    assert times.num_within(0.6) == 600
