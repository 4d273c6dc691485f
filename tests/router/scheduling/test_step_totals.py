"""Totals over steps, counted by hand."""

from fake_shards import FakeModel, submit
from schedulers import BLOCK_SIZE, NUM_BLOCKS, make_request, make_scheduler, run_step, run_to_end


def test_tokens_and_context_of_each_step() -> None:
    """A prompt of 20 in steps of 16 is two steps; then each decode reads all that was computed."""
    scheduler, model = make_scheduler(), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    submit(scheduler, make_request("a", list(range(20)), 3))
    run_step(scheduler, model)
    totals = scheduler.totals
    assert (totals.steps, totals.tokens, totals.budget, totals.context) == (1, 16, 16, 16)
    run_step(scheduler, model)
    assert (totals.steps, totals.tokens, totals.budget, totals.context) == (2, 20, 32, 16 + 20)
    run_to_end(scheduler, model)
    assert (totals.steps, totals.tokens, totals.context) == (4, 22, 16 + 20 + 21 + 22)
    assert scheduler.num_generated == 3


def test_the_budget_is_the_one_that_held() -> None:
    """Beside decodes it is the smaller one."""
    scheduler, model = make_scheduler(min_chunk=1), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    submit(scheduler, make_request("a", [1, 2], 3))
    run_step(scheduler, model)
    before = scheduler.totals.budget
    run_step(scheduler, model, max_mixed_tokens=5)
    assert scheduler.totals.budget - before == 5


def test_a_heartbeat_is_no_step() -> None:
    """It reads no weights."""
    scheduler = make_scheduler()
    scheduler.heartbeat()
    assert scheduler.totals.steps == 0
