"""Weights rounded to 4-bit integers in groups."""

import itertools

import pytest
import torch
from torch import Tensor

from cpu_backends import kernels_for, targets
from peregrine_kernels import int4
from peregrine_kernels.int4 import GROUPS_AT_A_TIME, NATIVE_SIZES, quantize_int4
from peregrine_kernels.weights import ROWS_AT_A_TIME, Int4Weight


def relative_error(weight: Tensor, rounded: Tensor) -> float:
    return float((weight - rounded).norm() / weight.norm())


def searched(weight: Tensor, group_size: int) -> Tensor:
    """The best of 60 scales of every group, tried one by one."""
    groups = weight.unflatten(1, (-1, group_size))
    extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    candidates = []
    for divisor, shrink in itertools.product((-8, -7.5, -7), range(20)):
        scale = (extreme * (1 - 0.02 * shrink) / divisor).bfloat16().float()
        candidates.append((groups / scale).round().clamp(-8, 7) * scale)
    tried = torch.stack(candidates)
    best = (tried - groups).square().sum(3, keepdim=True).argmin(0, keepdim=True)
    return tried.gather(0, best.expand(1, *groups.shape))[0].flatten(1)


def test_the_error_is_that_of_a_long_search() -> None:
    """Six scales and a least-squares step leave at most 1 % more error than 60 scales, whatever the distribution."""
    torch.manual_seed(0)
    for weight in (torch.randn(64, 512), torch.distributions.StudentT(5.0).sample((64, 512))):
        found = relative_error(weight, quantize_int4(weight, 64).dequantize())
        assert found < 1.01 * relative_error(weight, searched(weight, 64))


def test_stored_scales_are_those_that_were_used() -> None:
    """Scales are bfloat16, and the nearest multiple of each is stored for every weight."""
    weight = torch.randn(8, 128)
    quantized = quantize_int4(weight, 32)
    scales = quantized.scales.float().repeat_interleave(32, 1)
    assert quantized.scales.dtype == torch.bfloat16
    nearest = (weight / scales).round().clamp(-8, 7) * scales
    torch.testing.assert_close(quantized.dequantize(), nearest, rtol=0, atol=1e-6)


def test_parts_of_a_large_matrix_are_rounded_alike() -> None:
    """A row has the same values whatever rows are rounded with it; groups of zeros stay zero."""
    weight = torch.randn(2 * GROUPS_AT_A_TIME + 3, 16).bfloat16()
    weight[5] = 0
    whole = quantize_int4(weight, 8).dequantize()
    assert torch.equal(whole[GROUPS_AT_A_TIME:], quantize_int4(weight[GROUPS_AT_A_TIME:], 8).dequantize())
    assert not whole[5].any()
    assert whole.isfinite().all()


@targets
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("group_size", NATIVE_SIZES)
def test_the_native_kernel_rounds_as_torch_does(
    target: str, dtype: torch.dtype, group_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes and scales are the same to the bit: of outliers, ties of both signs, zeros, and values near none."""
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(3.0).sample((ROWS_AT_A_TIME + 3, 3 * group_size))
    weight[5], weight[6], weight[7] = 0, weight[6] * 1e-31, weight[7].sign()
    by_torch = rounded_by(None, weight.to(dtype), group_size, monkeypatch)
    by_kernel = rounded_by(target, weight.to(dtype), group_size, monkeypatch)
    assert torch.equal(by_kernel.packed, by_torch.packed)
    assert torch.equal(by_kernel.scales, by_torch.scales)


def rounded_by(target: str | None, weight: Tensor, group_size: int, monkeypatch: pytest.MonkeyPatch) -> Int4Weight:
    """By the kernels of a target, or by torch."""
    kernels = None if target is None else kernels_for(target)
    monkeypatch.setattr(int4, "rounding_library", lambda _device: kernels)
    return quantize_int4(weight, group_size)
