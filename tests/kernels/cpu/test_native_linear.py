"""Linears of 8-bit integers (W8A8) of the native kernels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpu_backends import kernels_for, native_backend, targets
from peregrine_kernels import Linear
from peregrine_kernels.cpu.native_linear import pack_tiles
from peregrine_kernels.int8 import quantize_rows


def pack(target: str, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Linear:
    backend = native_backend(target)
    return backend.linear(quantize_rows(weight, backend.largest_int8), bias, activation)


def exact(target: str, x: Tensor, weight: Tensor) -> Tensor:
    """float64: the product of the integers that both are made, times what they stand for."""
    quantized = quantize_rows(weight, native_backend(target).largest_int8)
    row_scales = x.float().abs().amax(1, keepdim=True) / 127
    inputs = (x.float() * (1 / row_scales)).round().double()
    return inputs @ quantized.values.double().T * row_scales * quantized.scales


@targets
@settings(max_examples=30, deadline=None)
@given(num_tokens=st.integers(1, 70), quads=st.integers(1, 60), num_outputs=st.integers(1, 300), seed=st.integers(0, 9))
def test_integers_are_multiplied_exactly(target: str, num_tokens: int, quads: int, num_outputs: int, seed: int) -> None:
    """For any shape, the result is the product of the integers, rounded to bfloat16."""
    torch.manual_seed(seed)
    x, weight = torch.randn(num_tokens, 4 * quads).bfloat16(), torch.randn(num_outputs, 4 * quads).bfloat16()
    torch.testing.assert_close(pack(target, weight)(x).double(), exact(target, x, weight), rtol=2**-8, atol=1e-5)


@targets
def test_a_quantized_layer_is_near_the_weight(target: str) -> None:
    """With 2,048 inputs the product differs from the unquantized one by less than 2 %, bias and activation included."""
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(5, 2048).bfloat16(),
        torch.randn(300, 2048).bfloat16() / 45,
        torch.randn(300).bfloat16(),
    )
    near = torch.nn.functional.gelu(x.float() @ weight.float().T + bias.float())
    assert (pack(target, weight, bias, "gelu")(x).float() - near).norm() < 0.02 * near.norm()


@targets
def test_rows_of_zeros_are_zero(target: str) -> None:
    """Inputs or weights without a largest element give zero and no NaN."""
    weight = torch.randn(64, 32).bfloat16()
    assert (pack(target, weight)(torch.zeros(3, 32).bfloat16()) == 0).all()
    assert (pack(target, torch.zeros_like(weight))(torch.randn(3, 32).bfloat16()) == 0).all()


@targets
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(1, 4), (33, 68), (64, 128), (70, 20)])
def test_a_weight_is_packed_in_tiles(target: str, dtype: torch.dtype, num_outputs: int, num_inputs: int) -> None:
    """Every value is where the layout has it, zeros past the ends; offsets are 128 times the rows' sums."""
    kernels = kernels_for(target)
    values = torch.randint(-128, 128, (num_outputs, num_inputs)).to(dtype)
    offsets = torch.empty(num_outputs) if dtype == torch.int8 else None
    packed = pack_tiles(kernels, values, offsets)
    rows = packed.transpose(1, 2).flatten(2).flatten(0, 1)
    assert rows.shape[0] % kernels.peregrine_columns_of_tile() == 0
    assert torch.equal(rows[:num_outputs, :num_inputs], values)
    assert not rows[num_outputs:].any()
    assert not rows[:, num_inputs:].any()
    assert offsets is None or torch.equal(offsets, 128.0 * values.sum(1))
