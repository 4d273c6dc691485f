"""The message of a step."""

from fake_shards import FakeModel, submit
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_builder import StepBuilder
from peregrine_server.protocol import encode, unpack
from schedulers import BLOCK_SIZE, make_request, make_scheduler, run_step


def test_a_decode_step_of_256_sequences_is_under_two_kilobytes() -> None:
    """The message of a decode step stays small, whatever the sequences hold."""
    scheduler = make_scheduler(num_blocks=10_000, max_batch_size=256, max_step_tokens=4096)
    model = FakeModel(10_000, BLOCK_SIZE)
    for i in range(256):
        submit(scheduler, make_request(str(i), [i % 250] * 9, 50))
    run_step(scheduler, model)
    step = run_step(scheduler, model)
    assert step is not None
    assert len(unpack(step.slots)) == 256
    assert len(encode(step)) < 2048


def test_tokens_are_listed_for_prompts_alone() -> None:
    """A decode computes one token; the message says how many each prompt behind the decodes does, and gives its
    blocks."""
    decode, prompt = (
        Sequence(make_request(name, [1, 2, 3], 5), [1, 2, 3], slot=slot) for slot, name in enumerate("ab")
    )
    builder = StepBuilder(step_id=4, budget=10)
    builder.scheduled.append(decode)
    builder.close_decodes()
    builder.add(prompt, 3, [7, 8])
    step = builder.message([5])
    assert builder.budget == 10 - 1 - 3
    assert (step.id, step.num_decodes) == (4, 1)
    lists = (step.freed, step.slots, step.num_tokens, step.block_rows, step.new_blocks)
    assert [unpack(each).tolist() for each in lists] == [[5], [0, 1], [3], [1, 1], [7, 8]]
