"""Linears that round their inputs, too: kernels under Triton's interpreter, and torch's own GEMM of fp8 on the CPU."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from peregrine_kernels import DenseWeight, Linear
from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.gpu import float8_linear, linear
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.float8_linear import FP8_PANEL_ROWS, Float8Linear
from peregrine_kernels.gpu.linear import PANEL_ROWS, panels
from peregrine_kernels.gpu.quantized_gemm import MAX_ROWS
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_kernels.reference.rounded_inputs import RoundedInputs
from peregrine_kernels.weights import Float8Weight

MANY = MAX_ROWS + 1
BOUNDS = {torch.float32: 1e-5, torch.float16: 4e-3}


@pytest.fixture
def gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that multiplies fp8."""
    monkeypatch.setattr(float8_linear, "FP8_CAPABILITY", 80)


def made(out_features: int = 160, in_features: int = 208) -> Float8Weight:
    torch.manual_seed(0)
    return replace(quantize_fp8(torch.randn(out_features, in_features) / in_features**0.5), rounds_inputs=True)


def expected(weight: Float8Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
    """The oracle, in the type of the inputs."""
    dtype = torch.float32 if bias is None else bias.dtype
    dense = DenseWeight(weight.dequantize().to(dtype))
    return RoundedInputs(ReferenceBackend().linear(dense, bias, activation))


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 3, 70, MANY])
def test_linear(rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product, bias, activation and residual, by every kernel; by torch's GEMM in panels that end within the weight."""
    monkeypatch.setattr(float8_linear, "FP8_PANEL_ROWS", 64)
    monkeypatch.setattr(linear, "PANEL_ALIGNMENT", 16)
    weight, bound = made(), BOUNDS[dtype]
    x, residual, bias = (torch.randn(*shape).to(dtype) for shape in ((rows, 208), (rows, 160), (160,)))
    for activation in (None, "gelu"):
        found = TritonBackend().linear(weight, bias, activation)(x, residual)
        torch.testing.assert_close(found, expected(weight, bias, activation)(x, residual), rtol=bound, atol=bound)


@pytest.mark.usefixtures("gemm")
def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    """Few rows, whose values are multiplied, and many, whose codes are: the same but for the order of sums, where
    rounded inputs are a hundredth off the others."""
    weight, x = made(), torch.randn(MANY, 208)
    linear = TritonBackend().linear(weight)
    many, few = linear(x), torch.cat([linear(part.contiguous()) for part in x.split(50)])
    torch.testing.assert_close(many, few, rtol=0, atol=1e-5)
    torch.testing.assert_close(linear(x[:1]), many[:1], rtol=0, atol=1e-5)
    exact = TritonBackend().linear(replace(weight, rounds_inputs=False))(x)
    assert (many - exact).std() > 0.01 * exact.std()


@pytest.mark.usefixtures("gemm")
def test_into_a_part_of_wider_rows() -> None:
    """Columns beside the part stay as they are."""
    weight, x, wide = made(), torch.randn(MANY, 208), torch.full((MANY, 200), 7.0)
    Float8Linear(weight, None, None).into(x, wide[:, 8:168])
    torch.testing.assert_close(wide[:, 8:168], expected(weight)(x), rtol=1e-5, atol=1e-5)
    assert (wide[:, :8] == 7.0).all()
    assert (wide[:, 168:] == 7.0).all()


@pytest.mark.parametrize(("size", "capability"), [((150, 208), 80), ((160, 204), 80), ((160, 208), 89)])
def test_what_no_gemm_takes_is_dequantized(
    size: tuple[int, int], capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes that 16 does not divide, and devices that do not multiply fp8: of the same rounded inputs."""
    monkeypatch.setattr(float8_linear, "FP8_CAPABILITY", capability)
    weight, x = made(*size), torch.randn(MANY, size[1])
    with patch.object(torch, "_scaled_mm", side_effect=AssertionError):
        torch.testing.assert_close(TritonBackend().linear(weight)(x), expected(weight)(x), rtol=1e-5, atol=1e-5)


def test_a_panel_takes_the_bytes_of_one_that_is_dequantized() -> None:
    """A byte a value in place of two: the memory that is planned for is enough."""
    assert FP8_PANEL_ROWS == 2 * PANEL_ROWS
    for out_features in (4544, 8192, 18176, 65024):
        largest = max(part.stop - part.start for part in panels(out_features, FP8_PANEL_ROWS))
        assert largest <= 2 * max(part.stop - part.start for part in panels(out_features))
