"""Values that the quantized weights stand for, against the formula written out element by element."""

import torch

from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.nf4 import quantize_nf4
from peregrine_kernels.weights import (
    ROWS_AT_A_TIME,
    CodebookWeight,
    Int4Weight,
    dequantized,
    pack_nibbles,
    unpack_nibbles,
)


def test_nibbles_are_packed_even_elements_low() -> None:
    """Byte j holds element 2 j in its low four bits."""
    values = torch.tensor([[1, 2, 15, 0]], dtype=torch.uint8)
    assert pack_nibbles(values).tolist() == [[0x21, 0x0F]]
    assert torch.equal(unpack_nibbles(pack_nibbles(values)), values)


def test_int4_is_distance_from_the_zero_point_times_the_groups_scale() -> None:
    """With the symmetric zero point, 8, and with one of each group."""
    q = torch.randint(16, (3, 16), dtype=torch.uint8)
    scales, zeros = torch.randn(3, 2), torch.rand(3, 2) * 15
    for given in (None, zeros):
        found = Int4Weight(pack_nibbles(q), scales, 8, given).dequantize()
        for row in range(3):
            for k in range(16):
                zero = 8 if given is None else given[row, k // 8]
                assert found[row, k] == (int(q[row, k]) - zero) * scales[row, k // 8]


def test_a_codebook_weight_is_a_table_entry_times_the_groups_scale() -> None:
    """Element by element."""
    q, table, scales = torch.randint(16, (2, 16), dtype=torch.uint8), torch.randn(16), torch.randn(2, 2)
    found = CodebookWeight(pack_nibbles(q), table, scales, 8).dequantize()
    assert all(found[row, k] == table[q[row, k].int()] * scales[row, k // 8] for row in range(2) for k in range(16))


def test_large_weights_are_dequantized_in_parts() -> None:
    """All rows of every kind, cast to the model's type."""
    weight = torch.randn(ROWS_AT_A_TIME + 3, 16)
    for quantized in (
        quantize_rows(weight, 127),
        quantize_fp8(weight),
        quantize_int4(weight, 8),
        quantize_nf4(weight, 8),
    ):
        assert torch.equal(dequantized(quantized, torch.bfloat16), quantized.dequantize().bfloat16())
