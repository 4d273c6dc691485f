"""The persistent batch: forward inputs from step deltas, with draft tokens, forks and block copies."""

from typing import Any

import numpy as np
import torch
from msgspec.structs import replace

from peregrine_kernels import PagedBatch
from peregrine_kernels.kv_cache import GraphDecodeRows
from peregrine_server.batch.batch import Batch
from peregrine_server.protocol import Fork, Grammar, NewSequence, SamplingParams, Step, pack

BLOCK_SIZE, MAX_TOKENS = 4, 10


def prefill(length: int, num_blocks: int, **sampling: Any) -> Step:
    """A prompt in slot 0, and its blocks 0, 1, ..."""
    return Step(
        0,
        new=[NewSequence(0, pack(range(100, 100 + length)), length, SamplingParams(**sampling))],
        slots=pack([0]),
        num_tokens=pack([length]),
        block_rows=pack([0] * num_blocks),
        new_blocks=pack(range(num_blocks)),
    )


def batch_after(step: Step, token_id: int = 7) -> Batch:
    """A batch that has computed a prompt and appended the token sampled after it."""
    batch = Batch(2, MAX_TOKENS, BLOCK_SIZE, torch.device("cpu"), ())
    batch.apply(step)
    work = batch.forward_input(step)
    assert work is not None
    batch.append(work.sampled, work.lengths, torch.tensor([token_id]))
    return batch


def paged(inputs: tuple[torch.Tensor, PagedBatch] | GraphDecodeRows) -> tuple[torch.Tensor, PagedBatch]:
    assert not isinstance(inputs, GraphDecodeRows)
    return inputs


def test_a_decode_with_draft_tokens_is_a_row_for_each() -> None:
    """The rows stand at consecutive positions, each followed by the draft token that it verifies, or by -1."""
    batch, step = batch_after(prefill(5, num_blocks=3)), Step(1, slots=pack([0]), num_decodes=1)
    batch.apply(step)
    work = batch.forward_input(step, [np.array([8, 9])])
    assert work is not None
    assert work.draft_tokens is not None
    assert work.draft_tokens.tolist() == [8, 9, -1]
    assert (work.sampled.tolist(), work.lengths.tolist(), work.sample_rows) == ([0, 0, 0], [6, 7, 8], None)
    token_ids, layout = paged(work.inputs)
    assert token_ids.tolist() == [7, 8, 9]
    assert layout.positions.tolist() == layout.slot_mapping.tolist() == [5, 6, 7]
    assert (layout.num_decodes, layout.query_lengths, layout.context_lengths) == (3, (1, 1, 1), (6, 7, 8))


def test_draft_room_ends_one_place_before_the_blocks_do() -> None:
    """The last place is for the token sampled after the draft; no sequence is longer than the batch allows."""
    assert batch_after(prefill(5, num_blocks=2)).draft_room(0) == 1
    assert batch_after(prefill(5, num_blocks=3)).draft_room(0) == MAX_TOKENS - 7


def test_a_sequence_with_a_grammar_has_no_draft_room() -> None:
    """Its mask is computed for the next token alone."""
    assert batch_after(prefill(5, num_blocks=3, grammar=Grammar("regex", "a"))).draft_room(0) == 0


def test_a_fork_samples_after_its_parents_last_row() -> None:
    """Both project the same hidden state, and the fork has the parent's tokens and blocks."""
    batch = Batch(2, MAX_TOKENS, BLOCK_SIZE, torch.device("cpu"), ())
    step = replace(prefill(5, num_blocks=2), forks=[Fork(1, 0, SamplingParams(seed=3))])
    batch.apply(step)
    work = batch.forward_input(step)
    assert work is not None
    assert work.sample_rows is not None
    assert (work.sampled.tolist(), work.lengths.tolist(), work.sample_rows.tolist()) == ([0, 1], [5, 5], [4, 4])
    assert batch.token_ids[1, :5].tolist() == batch.token_ids[0, :5].tolist()
    assert batch.parameters[1].seed == 3


def test_a_shared_last_block_is_replaced_by_its_copy() -> None:
    """The step says which block to copy where, and the sequence goes on in the copy."""
    batch = batch_after(prefill(5, num_blocks=2))
    step = Step(1, slots=pack([0]), num_decodes=1, copy_rows=pack([0]), copy_blocks=pack([6]))
    blocks = batch.apply(step)
    assert blocks is not None
    assert [each.tolist() for each in blocks] == [[1], [6]]
    work = batch.forward_input(step)
    assert work is not None
    assert paged(work.inputs)[1].slot_mapping.tolist() == [6 * BLOCK_SIZE + 1]


def test_a_model_with_state_is_told_the_slots() -> None:
    """Each sequence of a step comes with its slot; a model without state is told none."""
    step = Step(
        0,
        new=[NewSequence(slot, pack([5]), 1, SamplingParams()) for slot in (2, 0)],
        slots=pack([2, 0]),
        num_tokens=pack([1, 1]),
        block_rows=pack([0, 1]),
        new_blocks=pack([0, 1]),
    )
    for has_state, expected in ((True, [2, 0]), (False, None)):
        batch = Batch(3, MAX_TOKENS, BLOCK_SIZE, torch.device("cpu"), (), has_state=has_state)
        batch.apply(step)
        work = batch.forward_input(step)
        assert work is not None
        slots = paged(work.inputs)[1].slots
        assert (None if slots is None else slots.tolist()) == expected
