"""Slots, blocks and forks of the running sequences."""

import pytest

from fake_shards import FakeModel, expected, submit
from peregrine_server.protocol import unpack
from schedulers import BLOCK_SIZE, NUM_BLOCKS, generated, make_group, make_request, make_scheduler, run_step, run_to_end


@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_a_group_computes_its_prompt_once(length: int) -> None:
    """Four requests of one prompt take its tokens once, in chunks, and then one each a step; each its own seed's."""
    scheduler, model = make_scheduler(num_blocks=32, max_step_tokens=5), FakeModel(32, BLOCK_SIZE)
    prompt = list(range(length))
    group = scheduler.submit_group(make_group(prompt, [6] * 4))
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == length + 4 * 5
    assert [generated(s) for s in group] == [expected(prompt, 6, seed) for seed in range(4)]
    assert scheduler.pool.num_used == 0


@pytest.mark.parametrize("can_fork", [True, False])
def test_a_group_gives_the_tokens_of_single_requests(can_fork: bool) -> None:
    """Whether sequences can fork or not; where they cannot, each request computes what of its prompt is not cached."""
    scheduler, model = make_scheduler(num_blocks=32, can_fork=can_fork), FakeModel(32, BLOCK_SIZE)
    prompt, forks = list(range(10)), 0
    group = scheduler.submit_group(make_group(prompt, [6] * 4))
    while (step := run_step(scheduler, model)) is not None:
        scheduler.check_integrity()
        forks += len(step.forks)
    assert [generated(s) for s in group] == [expected(prompt, 6, seed) for seed in range(4)]
    assert forks == (3 if can_fork else 0)
    assert sum(model.step_tokens) == (10 if can_fork else 10 + 3 * 2) + 4 * 5


def test_forks_share_the_blocks_of_their_prompt() -> None:
    """Two whole blocks and a partial one: shared by all until each writes, and then only the partial one is copied."""
    scheduler, model = make_scheduler(num_blocks=32), FakeModel(32, BLOCK_SIZE)
    scheduler.submit_group(make_group(list(range(10)), [6] * 3))
    run_step(scheduler, model)
    assert scheduler.pool.num_used == 3
    step = run_step(scheduler, model)
    assert step is not None
    assert len(unpack(step.copy_blocks)) == 2
    assert scheduler.pool.num_used == 5


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_group_goes_on_without_a_member(leaver: int) -> None:
    """Whether the prompt owner is cancelled halfway through the prompt or a sibling: the others get their own
    tokens."""
    scheduler, model = make_scheduler(num_blocks=32, max_step_tokens=4), FakeModel(32, BLOCK_SIZE)
    group = scheduler.submit_group(make_group(list(range(10)), [6] * 3))
    run_step(scheduler, model)
    scheduler.cancel(group[leaver])
    scheduler.check_integrity()
    run_to_end(scheduler, model)
    assert [generated(s) for i, s in enumerate(group) if i != leaver] == [
        expected(range(10), 6, seed) for seed in range(3) if seed != leaver
    ]
    assert not generated(group[leaver])


def test_a_group_larger_than_the_batch_is_served_in_parts() -> None:
    """Five requests of one prompt on two slots all end, the prompt computed once for every two."""
    scheduler, model = make_scheduler(max_batch_size=2), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    group = scheduler.submit_group(make_group([1, 2, 3], [2] * 5))
    assert scheduler.num_waiting == 5
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 3 * 3 + 5
    assert [generated(s) for s in group] == [expected([1, 2, 3], 2, seed) for seed in range(5)]


def test_newcomers_leave_the_slots_that_a_group_needs() -> None:
    """While a group's prompt is computed, a request behind it does not take a fork's slot."""
    scheduler, model = make_scheduler(num_blocks=64, max_batch_size=3, max_step_tokens=8), FakeModel(64, BLOCK_SIZE)
    group = scheduler.submit_group(make_group(list(range(12)), [3] * 3))
    behind = submit(scheduler, make_request("behind", [1] * 13, 1))
    run_step(scheduler, model)
    assert [s.slot >= 0 for s in (*group, behind)] == [True, False, False, False]
    run_step(scheduler, model)
    assert [s.slot >= 0 for s in (*group, behind)] == [True, True, True, False]
    run_to_end(scheduler, model)
    assert behind.is_done


def test_slots_are_shared_between_tenants() -> None:
    """Ten requests each of two tenants, one's all before the other's: after half of the time half of each has ended."""
    scheduler, model = make_scheduler(num_blocks=64, max_batch_size=4), FakeModel(64, BLOCK_SIZE)
    sequences = {
        tenant: [submit(scheduler, make_request(f"{tenant}{i}", [i], 4, tenant=tenant)) for i in range(10)]
        for tenant in ("first", "second")
    }
    for _ in range(12):
        run_step(scheduler, model)
    assert {tenant: sum(s.is_done for s in own) for tenant, own in sequences.items()} == {"first": 6, "second": 6}
