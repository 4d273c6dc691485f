"""Sequences that give up slots and blocks for others, and are recomputed."""

import pytest

from fake_shards import FakeModel, expected, submit
from schedulers import BLOCK_SIZE, generated, make_group, make_request, make_scheduler, run_step, run_to_end


def test_a_preempted_sequence_continues_with_the_same_tokens() -> None:
    """When blocks run out the newest is recomputed later, and neither text changes."""
    scheduler, model = make_scheduler(num_blocks=6), FakeModel(6, BLOCK_SIZE)
    old = submit(scheduler, make_request("old", [1, 2, 3], 18))
    new = submit(scheduler, make_request("new", [4, 5, 6], 18))
    run_to_end(scheduler, model)
    assert scheduler.num_preemptions > 0
    assert generated(old) == expected([1, 2, 3], 18)
    assert generated(new) == expected([4, 5, 6], 18)


@pytest.mark.parametrize("scarce", ["slots", "blocks"])
def test_a_tenant_that_runs_nothing_preempts_one_of_many(scarce: str) -> None:
    """Slots or blocks all belong to one tenant: the newest of those waits, and goes on later with the same tokens."""
    num_blocks, size = (64, 3) if scarce == "slots" else (9, 8)
    scheduler, model = make_scheduler(num_blocks=num_blocks, max_batch_size=size), FakeModel(num_blocks, BLOCK_SIZE)
    many = [submit(scheduler, make_request(str(i), [i, 1, 2], 20, tenant="many")) for i in range(6)]
    for _ in range(3):
        run_step(scheduler, model)
    oldest = scheduler.running[0]
    one = submit(scheduler, make_request("one", [9, 9], 2, tenant="one"))
    run_step(scheduler, model)
    scheduler.check_integrity()
    assert len(generated(one)) == 1
    assert oldest.slot >= 0
    assert scheduler.num_preemptions > 0
    run_to_end(scheduler, model)
    assert [generated(s) for s in many] == [expected([i, 1, 2], 20) for i in range(6)]


def test_tenants_with_one_sequence_each_are_not_preempted_for_another() -> None:
    """Where every tenant runs one sequence, the next tenant waits for a slot."""
    scheduler, model = make_scheduler(num_blocks=64, max_batch_size=2), FakeModel(64, BLOCK_SIZE)
    for tenant in ("a", "b", "c"):
        submit(scheduler, make_request(tenant, [1], 5, tenant=tenant))
    run_to_end(scheduler, model)
    assert scheduler.num_preemptions == 0


def test_a_step_whose_sequences_were_all_preempted_is_made_of_others() -> None:
    """Two of a flood's five decodes take part; both, forks that share every block, are preempted, and free none. The
    next step follows at once, not after the heartbeat that follows if nothing can run."""
    scheduler = make_scheduler(num_blocks=10, max_batch_size=5, max_step_tokens=9, min_chunk=3)
    model = FakeModel(10, BLOCK_SIZE)
    sequences = [submit(scheduler, make_request("another", [9], 1, tenant="other"))]
    run_step(scheduler, model)
    sequences += scheduler.submit_group(make_group([1] * 5, [10, 10]))
    for _ in range(2):
        run_step(scheduler, model)
    sequences += scheduler.submit_group(make_group([2] * 12, [10, 10, 10]))
    run_to_end(scheduler, model)
    assert scheduler.num_preemptions > 0
    assert all(sequence.is_done for sequence in sequences)
