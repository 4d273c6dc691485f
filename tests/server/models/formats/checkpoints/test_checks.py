"""Checks of small tensors; those of whole checkpoints are in the tests of each layout."""

import pytest
import torch

from peregrine_server.models.formats.checkpoints.checks import fault_of_groups, fault_of_numbers, fault_of_zeros


@pytest.mark.parametrize(("stored", "num_bits"), [(7, 4), (8, 4), (127, 8), (128, 8)])
def test_zero_points_of_a_word_are_all_looked_at(stored: int, num_bits: int) -> None:
    """One that differs, in any place of a word, is a fault."""
    word = sum(stored << at for at in range(0, 32, num_bits))
    words = torch.tensor([[word]]).to(torch.int32)
    assert fault_of_zeros(stored, num_bits, words) is None
    for at in range(0, 32, num_bits):
        assert fault_of_zeros(stored, num_bits, words ^ torch.tensor(1 << at).to(torch.int32)) is not None


def test_a_number_too_large_for_float32_is_none() -> None:
    """A scale in float64 is read as float32."""
    assert fault_of_numbers(torch.tensor([1e300], dtype=torch.float64)) is not None
    assert fault_of_numbers(torch.tensor([1e30], dtype=torch.float64)) is None


def test_groups_in_another_order_are_a_fault_only_where_they_are_to_be_consecutive() -> None:
    """With act-order any group that there is will do."""
    groups = torch.tensor([0, 1, 0, 1], dtype=torch.int32)
    assert fault_of_groups(2, None, groups) is None
    assert fault_of_groups(2, 2, groups) is not None
    assert fault_of_groups(2, 2, groups.sort().values) is None
    assert fault_of_groups(1, None, groups) is not None
