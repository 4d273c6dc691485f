"""Inputs rounded to fp8 under Triton's interpreter, against the oracle."""

import pytest
import torch
from torch import Tensor

from peregrine_kernels.gpu import round_inputs as module
from peregrine_kernels.gpu.round_inputs import round_inputs_launch, rounded
from peregrine_kernels.reference.rounded_inputs import round_inputs

DTYPES = torch.float32, torch.float16
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def inputs(dtype: torch.dtype) -> Tensor:
    """Rows of several sizes, one of zeros, and some at the edges of a scale."""
    torch.manual_seed(0)
    x = torch.randn(8, 150) * torch.logspace(-3, 1, 8)[:, None]
    x[2], x[3, 0], x[4, 0] = 0.0, 28.0, 28.03
    return x.to(dtype)


def codes_of(x: Tensor) -> tuple[Tensor, Tensor]:
    codes, scales = torch.empty(x.shape, dtype=torch.float8_e4m3fn), torch.empty(len(x), 1)
    round_inputs_launch(x, codes, scales)()
    return codes, scales


@dtypes
def test_codes_and_scales_are_the_oracles(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, in rows that are longer than a program takes at a time."""
    monkeypatch.setattr(module, "BLOCK", 64)
    x = inputs(dtype)
    (codes, scales), (expected, expected_scales) = codes_of(x), round_inputs(x)
    assert torch.equal(codes.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(scales, expected_scales)


@dtypes
def test_values_are_those_of_the_codes(dtype: torch.dtype) -> None:
    """Exact in the type of the inputs, and rounded no further."""
    x = inputs(dtype)
    codes, scales = codes_of(x)
    values = rounded(x)
    assert values.dtype == dtype
    assert torch.equal(values.float(), codes.float() * scales)
    assert torch.equal(rounded(values), values)


def test_rows_may_be_strided() -> None:
    """A part of wider rows is rounded by its own scale."""
    wide = torch.randn(3, 100)
    wide[:, 70:] = 1e6
    assert torch.equal(codes_of(wide[:, :70])[0].view(torch.uint8), codes_of(wide[:, :70].clone())[0].view(torch.uint8))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_so(value: float) -> None:
    """A fault of the model is not rounded to a number; the other rows are as they were."""
    x = inputs(torch.float32)
    expected = codes_of(x)[0]
    x[5, 7] = value
    codes, _ = codes_of(x)
    assert codes[5, 7].float().isnan()
    assert not rounded(x)[5, 7].isfinite()
    assert torch.equal(codes[:5].view(torch.uint8), expected[:5].view(torch.uint8))
