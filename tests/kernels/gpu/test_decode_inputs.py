"""Decodes laid out from what the device holds of every slot, under Triton's interpreter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peregrine_kernels import PagedBatch
from peregrine_kernels.gpu.decode_inputs import decode_inputs_launch
from peregrine_kernels.kv_cache import GraphDecodeRows

NUM_SLOTS = 5
MAX_TOKENS = 40
NOT_WRITTEN = -7


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, NUM_SLOTS - 1), st.integers(0, MAX_TOKENS - 1)), max_size=6),
    st.integers(0, 3),
    st.sampled_from([1, 3, 8, 16]),
)
def test_rows_of_any_slots_and_positions(rows: list[tuple[int, int]], num_padding: int, block_size: int) -> None:
    """Each row has its slot's token, place and blocks, several of one slot among them; what follows is padding."""
    token_ids = torch.arange(NUM_SLOTS * MAX_TOKENS).view(NUM_SLOTS, MAX_TOKENS)
    width = -(-MAX_TOKENS // block_size)
    tables = torch.randperm(NUM_SLOTS * width).view(NUM_SLOTS, width)
    size = len(rows) + num_padding
    to_ids, positions, slot_mapping = (torch.full((size,), NOT_WRITTEN) for _ in range(3))
    to_tables = torch.full((size, width + 1), NOT_WRITTEN)
    to = PagedBatch(positions, slot_mapping, to_tables, (1,) * size, (MAX_TOKENS,) * size, size)
    step = GraphDecodeRows(
        torch.tensor(rows, dtype=torch.int64).view(-1, 2).T.contiguous(), token_ids, tables, block_size
    )
    decode_inputs_launch(step, to_ids, to)()
    for row, (slot, position) in enumerate(rows):
        num_blocks = position // block_size + 1
        assert to_ids[row] == token_ids[slot, position]
        assert positions[row] == position
        assert slot_mapping[row] == tables[slot, num_blocks - 1] * block_size + position % block_size
        assert torch.equal(to_tables[row, :num_blocks], tables[slot, :num_blocks])
        assert (to_tables[row, num_blocks:] == NOT_WRITTEN).all()
    assert (to_ids[len(rows) :] == 0).all()
    assert (positions[len(rows) :] == -1).all()
    assert (slot_mapping[len(rows) :] == -1).all()
