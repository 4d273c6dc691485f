"""Linears of quantized weights on the Triton backend, under Triton's interpreter, against the dequantized weights."""

from collections.abc import Callable

import pytest
import torch

from peregrine_kernels import DenseWeight, LinearInto
from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.gpu import linear as linear_module
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.dequantize import dequantize_launch
from peregrine_kernels.gpu.linear import panels
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.nf4 import quantize_nf4
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_kernels.weights import Int4Weight, Int8Weight, QuantizedWeight, dequantized

REFERENCE, BACKEND = ReferenceBackend(), TritonBackend()
BOUNDS = {torch.float32: 1e-5, torch.float16: 4e-3}


def with_zeros(weight: torch.Tensor) -> Int4Weight:
    """Groups whose zero points are no integers, and scales of float32."""
    packed = quantize_int4(weight, 32)
    zeros = 8 + torch.randn(packed.scales.shape)
    return Int4Weight(packed.packed, packed.scales.float(), 32, zeros)


QUANTIZE: dict[str, Callable[[torch.Tensor], QuantizedWeight]] = {
    "int8": lambda weight: quantize_rows(weight, 127),
    "fp8": quantize_fp8,
    "int4": lambda weight: quantize_int4(weight, 64),
    "int4 in groups of 8": lambda weight: quantize_int4(weight, 8),
    "int4 with zeros": with_zeros,
    "nf4": lambda weight: quantize_nf4(weight, 64),
}
kinds = pytest.mark.parametrize("kind", QUANTIZE)


@kinds
@pytest.mark.parametrize("dtype", BOUNDS)
def test_values_are_those_of_the_weight(kind: str, dtype: torch.dtype) -> None:
    """Dequantized to the bit, rows of more and of fewer bytes than a program takes. In bfloat16 Triton's interpreter
    truncates."""
    torch.manual_seed(0)
    for shape in ((3, 64), (18, 576)):
        weight = QUANTIZE[kind](torch.randn(shape))
        out = torch.full(shape, torch.nan, dtype=dtype)
        dequantize_launch(weight, out)()
        assert torch.equal(out, dequantized(weight, dtype))


@kinds
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_linear(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product, bias, activation and residual of the dequantized weight, in panels that end within the weight."""
    monkeypatch.setattr(linear_module, "PANEL_ROWS", 64)
    monkeypatch.setattr(linear_module, "PANEL_ALIGNMENT", 16)
    torch.manual_seed(0)
    weight = QUANTIZE[kind](torch.randn(150, 192) / 14)
    for dtype, bound in BOUNDS.items():
        x, residual, bias = (torch.randn(*shape).to(dtype) for shape in ((rows, 192), (rows, 150), (150,)))
        for epilogue in ((None, None), (bias, None), (bias, "gelu")):
            linear = BACKEND.linear(weight, *epilogue)
            expected = REFERENCE.linear(DenseWeight(dequantized(weight, dtype)), *epilogue)(x, residual)
            torch.testing.assert_close(linear(x, residual), expected, rtol=bound, atol=bound)


@kinds
@pytest.mark.parametrize("rows", [1, 3])
def test_linear_into_a_part_of_wider_rows(kind: str, rows: int) -> None:
    """Columns beside the part stay as they are."""
    weight = QUANTIZE[kind](torch.randn(72, 64))
    x, wide = torch.randn(rows, 64), torch.full((rows, 100), 7.0)
    linear = BACKEND.linear(weight)
    assert isinstance(linear, LinearInto)
    assert (linear.in_features, linear.out_features) == (64, 72)
    linear.into(x, wide[:, 8:80])
    torch.testing.assert_close(wide[:, 8:80], x @ weight.dequantize().T, rtol=1e-4, atol=1e-4)
    assert (wide[:, :8] == 7.0).all()
    assert (wide[:, 80:] == 7.0).all()


def test_one_scale_for_all_rows() -> None:
    """Scales that share memory, as a checkpoint with a scale a tensor gives them, are one for each row."""
    weight = quantize_rows(torch.randn(40, 64), 127)
    expanded = Int8Weight(weight.values, torch.tensor(0.5).expand(40))
    x = torch.randn(3, 64)
    torch.testing.assert_close(BACKEND.linear(expanded)(x), 0.5 * x @ weight.values.float().T)


@pytest.mark.parametrize("out_features", [1, 127, 4096, 4097, 4544, 18176, 65024])
def test_panels_cover_the_weight(out_features: int) -> None:
    """Each row once; all panels but the last have the same size, whole tiles of 128 rows and no more than 4,096."""
    parts = list(panels(out_features))
    assert [row for part in parts for row in range(out_features)[part]] == list(range(out_features))
    sizes = [part.stop - part.start for part in parts]
    assert len(set(sizes[:-1])) <= 1
    assert all(size % 128 == 0 for size in sizes[:-1])
    assert max(sizes) <= 4096
