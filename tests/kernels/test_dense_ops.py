"""Linear and LayerNorm of the CPU backends against the reference in float64."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpu_backends import both
from peregrine_kernels import Backend, DenseWeight
from peregrine_kernels.cpu.torch_linear import UnpackedLinear
from peregrine_kernels.reference.backend import ACTIVATIONS, ReferenceBackend

DTYPES = [torch.float32, torch.bfloat16]
Make = Callable[[], Backend]


def assert_rounded_once(actual: Tensor, exact: Tensor, slack: Tensor | float) -> None:
    """|actual - exact| is at most one rounding to actual's dtype, plus what float32 accumulation may cost."""
    bound = 1.01 * torch.finfo(actual.dtype).eps / 2 * exact.abs() + slack
    error = (actual.double() - exact).abs()
    assert (error <= bound).all(), f"{(error / bound).max()} times the bound"


def assert_product(actual: Tensor, x: Tensor, weight: Tensor) -> None:
    """actual is x @ weight.T, rounded once."""
    x, weight = x.double(), weight.double()
    assert_rounded_once(actual, x @ weight.T, 1e-6 * (x.abs() @ weight.abs().T))


@both
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 200), st.integers(1, 300), st.sampled_from(DTYPES))
def test_linear_of_any_shape(
    backend: Make, num_tokens: int, num_inputs: int, num_outputs: int, dtype: torch.dtype
) -> None:
    """A packed weight multiplies as the plain one does, whatever its shape and the number of tokens."""
    torch.manual_seed(0)
    x, weight = torch.randn(num_tokens, num_inputs, dtype=dtype), torch.randn(num_outputs, num_inputs, dtype=dtype)
    linear = backend().linear(DenseWeight(weight))
    assert (linear.in_features, linear.out_features) == (num_inputs, num_outputs)
    assert_product(linear(x), x, weight)


@both
@pytest.mark.parametrize("num_tokens", [33, 300])
def test_linear_of_many_columns(backend: Make, num_tokens: int) -> None:
    """Where each thread has so many columns that it packs the input for itself, every column is the product."""
    x, weight = torch.randn(num_tokens, 64).bfloat16(), torch.randn(1024 * torch.get_num_threads(), 64).bfloat16()
    assert_product(backend().linear(DenseWeight(weight))(x), x, weight)


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_adds_the_bias_after_rounding(backend: Make, dtype: torch.dtype) -> None:
    """The product is rounded before the bias is added, as in the reference and in transformers."""
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((5, 64), (96, 64), (96,)))
    made = backend()
    torch.testing.assert_close(
        made.linear(DenseWeight(weight), bias)(x), made.linear(DenseWeight(weight))(x) + bias, rtol=0, atol=0
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2**-4
    torch.testing.assert_close(
        made.linear(DenseWeight(weight), bias)(x),
        ReferenceBackend().linear(DenseWeight(weight), bias)(x),
        rtol=1e-5,
        atol=tolerance,
    )


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_linear_with_epilogues(backend: Make, activation: str | None, has_bias: bool, dtype: torch.dtype) -> None:
    """Activation and residual come in that order, after the bias; where there is none, the result is rounded once."""
    x, weight, bias, residual = (torch.randn(*shape).to(dtype) for shape in ((5, 64), (96, 64), (96,), (5, 96)))
    weight, before = weight / 8, residual.clone()
    linear = backend().linear(DenseWeight(weight), bias if has_bias else None, activation)
    wide_bias = bias.double() if has_bias else None
    exact = ReferenceBackend().linear(DenseWeight(weight.double()), wide_bias, activation)
    roundings = 0.0 if activation is None and not has_bias else 4 * torch.finfo(dtype).eps
    assert_rounded_once(linear(x), exact(x.double()), 1e-5 + 2 * roundings)
    assert_rounded_once(linear(x, residual), exact(x.double(), residual.double()), 1e-5 + 2 * roundings)
    assert torch.equal(residual, before)


@both
def test_linear_keeps_no_hold_of_the_weight(backend: Make) -> None:
    """A packed bfloat16 weight is a copy: the caller may overwrite or free the original."""
    x, weight = torch.randn(3, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    linear = backend().linear(DenseWeight(weight))
    if isinstance(linear, UnpackedLinear):
        pytest.skip("torch has nothing to pack bfloat16 for on this CPU")
    before = linear(x)
    weight.zero_()
    assert torch.equal(linear(x), before)


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2048), (7, 4544), (33, 64)])
def test_layer_norm_rounds_once(backend: Make, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """LayerNorm is the formula in float64 rounded once, for rows far from zero mean as well."""
    x = (torch.randn(shape) * 3 + 5).to(dtype)
    weight, bias = (torch.randn(shape[1]).to(dtype) for _ in range(2))
    exact = ReferenceBackend().layer_norm(x.double(), weight.double(), bias.double(), 1e-5)
    assert_rounded_once(backend().layer_norm(x, weight, bias, 1e-5), exact, 2e-5)


@both
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3000), st.integers(0, 2**32))
def test_the_likeliest_token_is_the_first_of_the_largest(backend: Make, rows: int, columns: int, seed: int) -> None:
    """Whatever the width, and however many are as large: logits are bfloat16, so that several often are."""
    logits = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).mul(4).round() - 20
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert backend().argmax(logits).tolist() == expected
