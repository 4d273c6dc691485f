"""Steps that do not fit the batch: refused before anything of them is applied."""

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from peregrine_server.batch.batch import Batch
from peregrine_server.execution.step_check import StepCheck, WrongStep
from peregrine_server.protocol import Fork, NewSequence, SamplingParams, Step, pack
from runners import BLOCK_SIZE, shard_config

NUM_BLOCKS, VOCAB_SIZE = 20, 100


def new(slot: int = 1, ids: Any = (1, 2, 3), prompt_length: int = 3, num_cached: int = 0) -> NewSequence:
    return NewSequence(slot, pack(ids), prompt_length, SamplingParams(), num_cached)


PREFILL = Step(
    1, new=[new()], slots=pack([0, 1]), num_decodes=1, num_tokens=pack([3]), block_rows=pack([1]), new_blocks=pack([7])
)
"""A decode of slot 0, which knows 9 tokens in two blocks, and a prompt in slot 1."""
DECODE = Step(1, slots=pack([0]), num_decodes=1)
WRONG: dict[str, tuple[Step, str]] = {
    "unknown slot": (replace(DECODE, slots=pack([16])), "a slot that there is not"),
    "negative slot": (replace(DECODE, slots=pack([-1])), "a slot that there is not"),
    "freed slot": (replace(DECODE, freed=pack([-1])), "a slot that there is not"),
    "slot of no sequence": (replace(DECODE, slots=pack([3])), "not known"),
    "part of a slot": (replace(DECODE, slots=b"\0\0"), "a part of a number"),
    "more decodes": (replace(DECODE, num_decodes=2), "other counts of tokens"),
    "fewer decodes": (replace(DECODE, num_decodes=-1), "other counts of tokens"),
    "more counts": (replace(DECODE, num_tokens=pack([1])), "other counts of tokens"),
    "no tokens": (replace(PREFILL, num_tokens=pack([0])), "computes nothing"),
    "more tokens than known": (replace(PREFILL, num_tokens=pack([4])), "not known"),
    "tokens without end": (replace(PREFILL, num_tokens=pack([2**31 - 1])), "not known"),
    "no block": (replace(PREFILL, block_rows=b"", new_blocks=b""), "have no block"),
    "unknown block": (replace(PREFILL, new_blocks=pack([20])), "a block that there is not"),
    "negative block": (replace(PREFILL, new_blocks=pack([-1])), "a block that there is not"),
    "block of no row": (replace(PREFILL, block_rows=pack([2])), "not scheduled"),
    "block of a negative row": (replace(PREFILL, block_rows=pack([-1])), "not scheduled"),
    "more blocks than rows": (replace(PREFILL, new_blocks=pack([7, 8])), "other counts of blocks"),
    "more blocks than fit": (replace(PREFILL, block_rows=pack([1] * 13), new_blocks=pack([7] * 13)), "more blocks"),
    "copy of an unknown block": (replace(DECODE, copy_rows=pack([0]), copy_blocks=pack([20])), "there is not"),
    "copy of no block": (replace(PREFILL, copy_rows=pack([1]), copy_blocks=pack([5])), "that has none"),
    "new in an unknown slot": (replace(PREFILL, new=[new(16)]), "new sequence in a slot"),
    "new in a negative slot": (replace(PREFILL, new=[new(-1)]), "new sequence in a slot"),
    "two in a slot": (replace(PREFILL, new=[new(), new()]), "or in another's"),
    "fork in an unknown slot": (replace(DECODE, forks=[Fork(16, 0, SamplingParams())]), "new sequence in a slot"),
    "unknown token": (replace(PREFILL, new=[new(ids=(1, 2, 100))]), "outside of the vocabulary"),
    "negative token": (replace(PREFILL, new=[new(ids=(1, 2, -1))]), "outside of the vocabulary"),
    "no prompt": (replace(PREFILL, new=[new(ids=())]), "of a length"),
    "long prompt": (replace(PREFILL, new=[new(ids=[1] * 97)]), "of a length"),
    "prompt longer than its tokens": (replace(PREFILL, new=[new(prompt_length=4)]), "of a length"),
    "all cached": (replace(PREFILL, new=[new(num_cached=3)]), "nothing is left to compute"),
    "fewer cached than none": (replace(PREFILL, new=[new(num_cached=-1)]), "nothing is left to compute"),
    "draft tokens": (replace(DECODE, max_draft_tokens=3), "--speculate"),
    "fewer draft tokens than none": (replace(DECODE, max_draft_tokens=-1), "--speculate"),
}


@pytest.fixture
def check(tmp_path: Path) -> StepCheck:
    """The check of a batch whose slot 0 has computed 8 tokens and knows 9."""
    batch = Batch(16, 96, BLOCK_SIZE, torch.device("cpu"), ())
    prompt = Step(
        0,
        new=[new(0, range(8), 8)],
        slots=pack([0]),
        num_tokens=pack([8]),
        block_rows=pack([0, 0]),
        new_blocks=pack([3, 4]),
    )
    batch.apply(prompt)
    work = batch.forward_input(prompt)
    assert work is not None
    batch.append(work.sampled, work.lengths, torch.tensor([9]))
    return StepCheck(batch, shard_config(tmp_path, max_draft_tokens=2), NUM_BLOCKS, VOCAB_SIZE)


def test_what_a_router_sends_passes(check: StepCheck) -> None:
    """Decodes, draft tokens, prompts whole or from the cache, copies, forks, and a step without work."""
    for step in (
        DECODE,
        PREFILL,
        Step(1),
        replace(DECODE, max_draft_tokens=2, copy_rows=pack([0]), copy_blocks=pack([5])),
        replace(DECODE, freed=pack([15]), forks=[Fork(2, 0, SamplingParams())]),
        replace(PREFILL, new=[new(num_cached=2)], num_tokens=pack([1])),
    ):
        check(step)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_step_is_refused(kind: str, check: StepCheck) -> None:
    """The shard ends with a line that says what was wrong."""
    step, words = WRONG[kind]
    with pytest.raises(WrongStep, match=rf"^the router sent step 1 .*{words}.*: is its version the shard's\?$"):
        check(step)
