"""Weights rounded to 8-bit integers."""

import pytest
import torch
from torch import Tensor

from cpu_backends import kernels_for, targets
from peregrine_kernels import int8
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.weights import ROWS_AT_A_TIME, Int8Weight


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


@targets
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_the_native_kernel_rounds_as_torch_does(
    target: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integers and scales are the same to the bit, for any number of inputs."""
    torch.manual_seed(0)
    for num_inputs in (4, 17, 64, 100):
        weight = torch.distributions.StudentT(3.0).sample((ROWS_AT_A_TIME + 3, num_inputs)).to(dtype)
        weight[5] = 0
        by_torch = rounded_by(None, weight, monkeypatch)
        by_kernel = rounded_by(target, weight, monkeypatch)
        assert torch.equal(by_kernel.values, by_torch.values)
        assert torch.equal(by_kernel.scales, by_torch.scales)


def rounded_by(target: str | None, weight: Tensor, monkeypatch: pytest.MonkeyPatch) -> Int8Weight:
    """By the kernels of a target, or by torch."""
    kernels = None if target is None else kernels_for(target)
    monkeypatch.setattr(int8, "rounding_library", lambda _device: kernels)
    return quantize_rows(weight, 127)
