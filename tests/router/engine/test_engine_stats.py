"""The engine's statistics."""

from fake_shards import FakeModel, submit
from peregrine_router.engine.engine_stats import engine_stats
from schedulers import BLOCK_SIZE, NUM_BLOCKS, make_group, make_request, make_scheduler, run_step, run_to_end


def test_requests_by_tenant_and_state() -> None:
    """Siblings that wait for their prompt count as the queue's size counts them."""
    scheduler, model = make_scheduler(max_batch_size=1), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    submit(scheduler, make_request("a", [1, 2], 3, tenant="one"))
    run_step(scheduler, model)
    submit(scheduler, make_request("b", [3], 3, tenant="two"))
    scheduler.submit_group(make_group([4, 5], [3, 3]))
    stats = engine_stats(scheduler, 0.5)
    assert stats.running_by_tenant == {"one": 1}
    assert stats.waiting_by_tenant == {"two": 1, "": 2}
    assert (stats.batch_size, stats.queue_size, stats.step_age) == (1, 3, 0.5)


def test_counters_of_prompts_and_cache() -> None:
    """A prompt that comes again is found in the cache, but for its last block; a larger one then evicts blocks."""
    scheduler, model = make_scheduler(), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    for name in ("a", "b"):
        submit(scheduler, make_request(name, list(range(12)), 1))
        run_to_end(scheduler, model)
    stats = engine_stats(scheduler, 0.0)
    assert (stats.prompt_tokens, stats.cached_tokens, stats.generated_tokens) == (24, 8, 2)
    assert stats.evictions == 0
    submit(scheduler, make_request("c", list(range(50, 50 + 44)), 4))
    run_to_end(scheduler, model)
    assert engine_stats(scheduler, 0.0).evictions > 0
