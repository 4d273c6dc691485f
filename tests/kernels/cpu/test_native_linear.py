"""Linears of 8-bit integers (W8A8) of the native kernels."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpu_backends import native_backend, targets
from peregrine_kernels import Linear
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
