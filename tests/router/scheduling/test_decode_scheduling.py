"""Decodes: a token for each running sequence."""

from fake_shards import FakeModel, submit
from peregrine_server.protocol import unpack
from schedulers import BLOCK_SIZE, NUM_BLOCKS, generated, make_request, make_scheduler, run_step


def test_decodes_come_before_prompts() -> None:
    """While a long prompt is computed in chunks, a running sequence gains a token at every step."""
    scheduler, model = make_scheduler(max_step_tokens=5), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    first = submit(scheduler, make_request("first", [1], 12))
    run_step(scheduler, model)
    submit(scheduler, make_request("second", list(range(16)), 1))
    for _ in range(4):
        before = len(generated(first))
        step = run_step(scheduler, model)
        assert step is not None
        assert (step.num_decodes, unpack(step.num_tokens).tolist()) == (1, [4])
        assert len(generated(first)) == before + 1


def test_a_sequence_whose_length_is_in_flight_is_left_out() -> None:
    """With the last token of a sequence in flight, the next step computes only the other."""
    scheduler, model = make_scheduler(), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    short, long = (submit(scheduler, make_request(str(new), [new], new)) for new in (2, 4))
    results = []
    for _ in range(3):
        step = scheduler.schedule()
        assert step is not None
        results.append(model.execute(step))
    assert model.batch_sizes == [2, 2, 1]
    for result in results:
        scheduler.commit(result)
    assert (short.is_done, long.num_generated) == (True, 3)
