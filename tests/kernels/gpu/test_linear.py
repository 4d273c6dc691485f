"""Linears of quantized weights on the Triton backend, under Triton's interpreter, against the dequantized weights."""

import pytest
import torch

from packed_weights import QUANTIZE
from peregrine_kernels import DenseWeight, LinearInto
from peregrine_kernels.gpu import linear as linear_module
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.dequantize import dequantize_launch
from peregrine_kernels.gpu.fragment_order import fragment_order
from peregrine_kernels.gpu.linear import panels
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_kernels.weights import Int8Weight, dequantized

REFERENCE, BACKEND = ReferenceBackend(), TritonBackend()
BOUNDS = {torch.float32: 1e-5, torch.float16: 4e-3}


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
        dequantize_launch(fragment_order(weight), out)()
        assert torch.equal(out, dequantized(weight, dtype))


@kinds
@pytest.mark.parametrize("rows", [0, 1, 3, 70, 81])
def test_linear(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product, bias, activation and residual of the dequantized weight: one row, few whose sums are scaled, more whose
    weights are, in two blocks, and many, in panels that end within the weight."""
    monkeypatch.setattr(linear_module, "PANEL_ROWS", 64)
    monkeypatch.setattr(linear_module, "PANEL_ALIGNMENT", 16)
    monkeypatch.setattr(linear_module, "MAX_ROWS", 80)
    torch.manual_seed(0)
    weight = QUANTIZE[kind](torch.randn(150, 192) / 14)
    for dtype, bound in BOUNDS.items():
        x, residual, bias = (torch.randn(*shape).to(dtype) for shape in ((rows, 192), (rows, 150), (150,)))
        for epilogue in ((bias, None), (None, "gelu")):
            linear = BACKEND.linear(weight, *epilogue)
            expected = REFERENCE.linear(DenseWeight(dequantized(weight, dtype)), *epilogue)(x, residual)
            torch.testing.assert_close(linear(x, residual), expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 3, 257])
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
    torch.testing.assert_close(BACKEND.linear(expanded)(x), 0.5 * x @ weight.values.float().T, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("out_features", [1, 127, 4096, 4097, 4544, 18176, 65024])
def test_panels_cover_the_weight(out_features: int) -> None:
    """Each row once; all panels but the last have the same size, whole tiles of 128 rows and no more than 4,096."""
    parts = list(panels(out_features))
    assert [row for part in parts for row in range(out_features)[part]] == list(range(out_features))
    sizes = [part.stop - part.start for part in parts]
    assert len(set(sizes[:-1])) <= 1
    assert all(size % 128 == 0 for size in sizes[:-1])
    assert max(sizes) <= 4096
