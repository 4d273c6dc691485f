"""The steps that a shard runs before it is ready leave nothing behind."""

import pytest

from fake_shards import submit
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Request, SamplingParams
from peregrine_server.execution.runner import Runner
from runners import load_runner, make_scheduler, run_step, shard_config

PROMPT = (5, 9, 70, 11)
KINDS = [SamplingParams(), SamplingParams(do_sample=True, seed=3, temperature=1.2)]


def tokens(runner: Runner) -> list[list[int]]:
    """Tokens of a greedy and a sampled sequence."""
    scheduler = make_scheduler()
    sequences = [submit(scheduler, Request(str(i), PROMPT, kind, 20)) for i, kind in enumerate(KINDS)]
    while run_step(runner, scheduler) is not None:
        pass
    return [list(sequence.token_ids) for sequence in sequences]


@pytest.mark.parametrize("speculate", [0, 4])
def test_the_first_requests_get_what_they_would_have_got(speculate: int) -> None:
    """They take the same slots and blocks."""
    cold, warm = (load_runner(demo_path(), max_draft_tokens=speculate) for _ in range(2))
    warm.warm_up(shard_config(demo_path()))
    assert tokens(warm) == tokens(cold)


def test_the_smallest_cache_is_enough() -> None:
    """One slot, one block."""
    sizes = {"max_batch_size": 1, "max_total_tokens": 4, "max_batch_total_tokens": 8}
    load_runner(demo_path(), **sizes).warm_up(shard_config(demo_path(), **sizes))
