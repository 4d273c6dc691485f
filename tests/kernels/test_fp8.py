"""Weights rounded to 8-bit floating-point numbers."""

import torch

from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.weights import ROWS_AT_A_TIME


def test_rounding_is_to_four_significant_bits() -> None:
    """Every value but the smallest is within 1/16 of its weight, in every part of a large matrix; none overflows."""
    weight = torch.randn(ROWS_AT_A_TIME + 3, 64).bfloat16()
    rounded = quantize_fp8(weight).dequantize()
    smallest = weight.float().abs().amax(1, keepdim=True) / 448 * 2**-6
    error = (rounded - weight.float()).abs()
    assert (error <= weight.float().abs().maximum(smallest) * (2**-4 + 1e-6)).all()


def test_a_row_of_zeros_stays_zero() -> None:
    """Its scale is no division by zero."""
    assert not quantize_fp8(torch.zeros(2, 8).bfloat16()).dequantize().any()
