"""Chunks of prompts: their size, their order, and decodes beside them."""

from fake_shards import FakeModel, expected, submit
from peregrine_router.scheduling.step_limits import MIN_CHUNK
from schedulers import BLOCK_SIZE, NUM_BLOCKS, generated, make_request, make_scheduler, run_step, run_to_end


def test_prompts_run_in_chunks_of_the_budget() -> None:
    """A prompt longer than the budget is computed over several steps, none above the budget."""
    scheduler, model = make_scheduler(max_step_tokens=7), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    sequence = submit(scheduler, make_request("a", list(range(20)), 3))
    run_to_end(scheduler, model)
    assert model.step_tokens == [7, 7, 6, 1, 1]
    assert generated(sequence) == expected(range(20), 3)


def test_a_prompt_is_computed_in_smaller_chunks_beside_decodes() -> None:
    """Up to the budget of a mixed step, and never less than `MIN_CHUNK`."""
    scheduler, model = make_scheduler(num_blocks=256, max_step_tokens=200), FakeModel(256, BLOCK_SIZE)
    submit(scheduler, make_request("first", list(range(190)), 20))
    run_step(scheduler, model)
    submit(scheduler, make_request("second", list(range(1, 191)), 20))
    for budget in (50, 2):
        run_step(scheduler, model, budget)
    assert model.step_tokens == [190, 50, 1 + MIN_CHUNK]


def test_a_short_prompt_does_not_wait_for_a_long_one_that_was_begun() -> None:
    """It is computed between two chunks, and the long one goes on beside it."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=8), FakeModel(64, BLOCK_SIZE)
    long = submit(scheduler, make_request("long", list(range(40)), 2))
    run_step(scheduler, model)
    short = submit(scheduler, make_request("short", [1, 2, 3], 2))
    run_step(scheduler, model)
    assert (short.num_generated, long.num_computed) == (1, 8 + 5)
    run_to_end(scheduler, model)
    assert generated(long) == expected(range(40), 2, 0)


def test_a_newcomer_has_a_step_without_the_decodes_of_a_flood() -> None:
    """Its prompt is computed alone, neither split nor beside others of the flood; then all go on."""
    scheduler, model = make_scheduler(num_blocks=256, max_step_tokens=64), FakeModel(256, BLOCK_SIZE)
    flood = [submit(scheduler, make_request(str(i), [i], 20, tenant="flood")) for i in range(6)]
    run_step(scheduler, model, 8)
    newcomer = submit(scheduler, make_request("new", list(range(40)), 2, tenant="other"))
    submit(scheduler, make_request("more", list(range(9)), 2, tenant="flood"))
    run_step(scheduler, model, 8)
    assert model.step_tokens[-1] == 40
    assert newcomer.num_generated == 1
    run_step(scheduler, model, 8)
    assert [sequence.num_generated for sequence in flood] == [2] * 6


def test_a_flood_of_short_prompts_does_not_keep_another_tenant_from_its_end() -> None:
    """A prompt that is begun goes on before those of a tenant that runs more, though their deadlines are earlier."""
    scheduler, model = make_scheduler(num_blocks=256, max_batch_size=64, max_step_tokens=8), FakeModel(256, BLOCK_SIZE)
    for i in range(40):
        submit(scheduler, make_request(str(i), [i] * 4, 30, tenant="flood"))
    run_step(scheduler, model)
    prompt = submit(scheduler, make_request("other", list(range(40)), 1, tenant="other"))
    for _ in range(8):
        run_step(scheduler, model)
    assert prompt.is_done
