"""Results of steps in flight."""

import numpy as np
import pytest

from fake_shards import FakeModel, submit
from peregrine_router.scheduling.in_flight import sampled_tokens
from peregrine_server.protocol import StepResult, pack
from schedulers import BLOCK_SIZE, NUM_BLOCKS, make_request, make_scheduler


def test_the_tokens_of_a_result_have_rows() -> None:
    """Several tokens of a slot are rows of their own; log-probabilities are None where the shards sent none."""
    plain = StepResult(0, pack([4, 4, 2]), pack([10, 11, 12]), b"")
    assert sampled_tokens(plain) == [(4, 0, 10, None), (4, 1, 11, None), (2, 2, 12, None)]
    scored = StepResult(0, pack([4]), pack([10]), np.array([-0.5], "<f4").tobytes())
    assert sampled_tokens(scored) == [(4, 0, 10, -0.5)]


def test_results_are_committed_in_the_order_of_their_steps() -> None:
    """A result of another step than the oldest in flight is refused, and changes nothing."""
    scheduler, model = make_scheduler(), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    sequence = submit(scheduler, make_request("a", [1], 5))
    results = []
    for _ in range(2):
        step = scheduler.schedule()
        assert step is not None
        results.append(model.execute(step))
    with pytest.raises(ValueError, match="answered step 1, step 0 was due"):
        scheduler.commit(results[1])
    assert not sequence.num_generated
    assert len(scheduler.in_flight) == 2


def test_a_cancelled_sequence_leaves_the_steps_in_flight() -> None:
    """Its tokens in results that come later are nobody's."""
    scheduler, model = make_scheduler(), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    cancelled, other = (submit(scheduler, make_request(name, [1], 5)) for name in "ab")
    step = scheduler.schedule()
    assert step is not None
    result = model.execute(step)
    scheduler.cancel(cancelled)
    assert list(scheduler.in_flight[0].sequences.values()) == [other]
    assert [token.sequence for token in scheduler.commit(result)] == [other]
