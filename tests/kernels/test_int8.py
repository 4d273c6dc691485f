"""Weights rounded to 8-bit integers."""

import torch

from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.weights import ROWS_AT_A_TIME


def test_rounding_is_to_the_nearest() -> None:
    """Every value is within half a scale of its weight, in every part of a large matrix; the largest is `largest`."""
    weight = torch.randn(ROWS_AT_A_TIME + 3, 64).bfloat16()
    for largest in (63, 127):
        quantized = quantize_rows(weight, largest)
        assert quantized.shape == (ROWS_AT_A_TIME + 3, 64)
        assert (quantized.values.abs().amax(1) == largest).all()
        error = (quantized.values.float() * quantized.scales[:, None] - weight.float()).abs()
        assert (error <= 0.5001 * quantized.scales[:, None]).all()


def test_a_row_of_zeros_stays_zero() -> None:
    """Its scale is no division by zero."""
    quantized = quantize_rows(torch.zeros(2, 8).bfloat16(), 127)
    assert not quantized.values.any()
    assert quantized.scales.isfinite().all()
