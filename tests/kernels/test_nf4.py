"""Weights rounded to 4-bit NormalFloat."""

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from peregrine_kernels.nf4 import NF4, quantize_nf4
from peregrine_kernels.weights import ROWS_AT_A_TIME


def test_every_weight_has_the_nearest_value_of_the_table() -> None:
    """The scale of a block is its largest magnitude, in every part of a large matrix."""
    weight = torch.randn(ROWS_AT_A_TIME + 3, 128)
    quantized = quantize_nf4(weight, 64)
    scales = weight.unflatten(1, (2, 64)).abs().amax(2)
    assert torch.equal(quantized.scales, scales)
    choices = torch.tensor(NF4) * scales.repeat_interleave(64, 1)[..., None]
    nearest = (choices - weight[..., None]).abs().amin(2)
    torch.testing.assert_close((quantized.dequantize() - weight).abs(), nearest)


def test_values_are_those_of_bitsandbytes() -> None:
    """Its own package rounds each weight to the same."""
    weight = torch.randn(64, 128)
    packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
    torch.testing.assert_close(quantize_nf4(weight, 64).dequantize(), dequantize_4bit(packed, state), atol=0, rtol=1e-6)


def test_a_block_of_zeros_stays_zero() -> None:
    """Its scale is no division by zero."""
    assert not quantize_nf4(torch.zeros(2, 8).bfloat16(), 8).dequantize().any()
