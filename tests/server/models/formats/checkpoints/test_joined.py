"""Weights of several linears as one."""

import pytest
import torch

from peregrine_kernels import DenseWeight
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.nf4 import quantize_nf4
from peregrine_kernels.weights import CodebookWeight, Int4Weight
from peregrine_server.models.formats.checkpoints.joined import joined

TABLES = torch.randn(8, 64), torch.randn(8, 64)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("quantize", "kind"), [(quantize_int4, Int4Weight), (quantize_nf4, CodebookWeight)])
def test_groups_stay_packed(quantize: type, kind: type, axis: int) -> None:
    """Side by side, or one below the other."""
    parts = [quantize(table, 32) for table in TABLES]
    weight = joined(parts, axis, torch.float32)
    assert isinstance(weight, kind)
    assert torch.equal(weight.dequantize(), torch.cat([part.dequantize() for part in parts], axis))


def test_other_weights_are_dense() -> None:
    """Such as those of two tables of values."""
    first, second = (quantize_nf4(table, 32) for table in TABLES)
    second = CodebookWeight(second.packed, second.table * 2, second.scales, 32)
    weight = joined([first, second], 1, torch.float32)
    assert isinstance(weight, DenseWeight)
    assert torch.equal(weight.values, torch.cat([first.dequantize(), second.dequantize()], 1))
