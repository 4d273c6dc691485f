"""Prefixes that one request computes for others."""

import pytest

from fake_shards import FakeModel, expected, submit
from schedulers import BLOCK_SIZE, generated, make_request, make_scheduler, run_step, run_to_end


@pytest.mark.parametrize("budget", [7, 16, 64, 256])
def test_requests_of_one_new_prefix_compute_it_once(budget: int) -> None:
    """Six that come at once compute the 32 tokens that they share once, in chunks or whole, and then each its own."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=budget), FakeModel(64, BLOCK_SIZE)
    prompts = [[*range(32), i, i] for i in range(6)]
    sequences = [submit(scheduler, make_request(str(i), prompt, 3)) for i, prompt in enumerate(prompts)]
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 32 + 6 * (2 + 2)
    assert [generated(sequence) for sequence in sequences] == [expected(prompt, 3) for prompt in prompts]
    assert [sequence.num_prefix_hit_tokens for sequence in sequences] == [0, *[32] * 5]


def test_requests_of_one_new_prefix_begin_in_one_step() -> None:
    """If the budget allows it, no request waits for the one that computes the prefix, nor does one without it."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=64), FakeModel(64, BLOCK_SIZE)
    for i, prompt in enumerate(([*range(32), 1], [*range(32), 2], [5, 6], [*range(32), 3])):
        submit(scheduler, make_request(str(i), prompt, 1))
    run_to_end(scheduler, model)
    assert model.step_tokens == [33 + 1 + 2 + 1]


def test_a_prefix_goes_on_when_its_request_is_cancelled() -> None:
    """The next request finds the blocks of its first chunks, and computes the rest for the others."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=16), FakeModel(64, BLOCK_SIZE)
    first, *others = [submit(scheduler, make_request(str(i), [*range(32), i], 2)) for i in range(4)]
    run_step(scheduler, model)
    scheduler.cancel(first)
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 32 + 3 * (1 + 1)
    assert [generated(s) for s in others] == [expected([*range(32), i], 2) for i in range(1, 4)]


def test_tenants_compute_a_new_prefix_apart() -> None:
    """Requests with another salt share nothing, though they begin in the same step."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=256), FakeModel(64, BLOCK_SIZE)
    for i in range(4):
        submit(scheduler, make_request(str(i), [*range(32), i], 1, salt=bytes([i % 2])))
    run_to_end(scheduler, model)
    assert model.step_tokens == [2 * (33 + 1)]


def test_a_prompt_that_is_overtaken_takes_what_was_computed_meanwhile() -> None:
    """A shorter prompt with the same beginning goes first; the longer one does not compute that once more."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=8), FakeModel(64, BLOCK_SIZE)
    long = submit(scheduler, make_request("long", [*range(24), 1, 2, 3, 4], 2))
    run_step(scheduler, model)
    short = submit(scheduler, make_request("short", [*range(24), 9], 2))
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 24 + 4 + 1 + 2
    assert generated(long) == expected([*range(24), 1, 2, 3, 4], 2, 0)
    assert generated(short) == expected([*range(24), 9], 2, 0)
