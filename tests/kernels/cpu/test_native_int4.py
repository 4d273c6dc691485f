"""Linears of 4-bit integers (W4A8) of the native kernels, against the weight that they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpu_backends import native_backend, targets
from int4_weights import random_int4, rounded_inputs
from peregrine_kernels import DenseWeight
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_kernels.weights import Int4Weight

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 32, 33, 256, 260)
"""Around the numbers of rows at which a kernel takes another path; 260 are two blocks."""


def assert_product(actual: Tensor, x: Tensor, weight: Int4Weight) -> None:
    """actual is the product of what is multiplied, added in float32 and rounded to bfloat16."""
    inputs, values = rounded_inputs(x), weight.dequantize().double()
    exact, sizes = inputs @ values.T, inputs.abs() @ values.abs().T
    assert ((actual.double() - exact).abs() <= 1.01 * 2**-8 * exact.abs() + 2e-6 * sizes).all()


@targets
@settings(max_examples=40, deadline=None)
@given(
    num_tokens=st.integers(1, 70),
    groups=st.integers(1, 9),
    group_size=st.sampled_from([32, 64, 96, 128]),
    num_outputs=st.integers(1, 150),
    has_zeros=st.booleans(),
    seed=st.integers(0, 9),
)
def test_integers_are_multiplied_exactly(
    target: str,
    num_tokens: int,
    groups: int,
    group_size: int,
    num_outputs: int,
    has_zeros: bool,
    seed: int,
) -> None:
    """For any shape, group and zero points, only the sum over groups and the result are rounded."""
    torch.manual_seed(seed)
    weight = random_int4(num_outputs, groups * group_size, group_size, has_zeros)
    x = torch.randn(num_tokens, groups * group_size).bfloat16()
    assert_product(native_backend(target).linear(weight)(x), x, weight)


@targets
@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize(("num_inputs", "group_size"), [(288, 32), (576, 64), (10240, 128)])
def test_a_row_does_not_depend_on_the_rows_beside_it(
    target: str, num_inputs: int, group_size: int, has_zeros: bool
) -> None:
    """To the bit, for every number of rows; at 10,240 inputs AMX adds up large batches in parts."""
    torch.manual_seed(0)
    weight, x = random_int4(45, num_inputs, group_size, has_zeros), torch.randn(max(ROWS), num_inputs).bfloat16()
    linear = native_backend(target).linear(weight)
    every = linear(x)
    assert_product(every, x, weight)
    for rows in ROWS:
        assert torch.equal(linear(x[:rows]), every[:rows]), rows
        assert torch.equal(linear(x[-rows:]), every[-rows:]), rows


@targets
def test_the_largest_integers_do_not_saturate(target: str) -> None:
    """Inputs and weights of the largest size and one sign, whose pairs AVX2 adds up in 16 bits."""
    packed, scales = torch.full((20, 128), 255, dtype=torch.uint8), torch.full((20, 4), 2.0**-7)
    weight, x = Int4Weight(packed, scales, 64, torch.zeros(20, 4)), torch.ones(9, 256).bfloat16()
    linear = native_backend(target).linear(weight)
    for rows in (x, -x, x[:1], -x[:1]):
        assert (linear(rows) == rows[:, :1] * 256 * 15 / 128).all()


@targets
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_bias_activation_and_residual(target: str, has_bias: bool, activation: str | None, rows: int) -> None:
    """They are those of a linear of the weight that the integers stand for."""
    torch.manual_seed(0)
    weight, x = random_int4(96, 128), torch.randn(rows, 128).bfloat16()
    bias, residual = torch.randn(96).bfloat16() if has_bias else None, torch.randn(rows, 96).bfloat16()
    wide_bias = None if bias is None else bias.double()
    exact = ReferenceBackend().linear(DenseWeight(weight.dequantize().double()), wide_bias, activation)
    actual = native_backend(target).linear(weight, bias, activation)
    for added in (None, residual):
        expected = exact(rounded_inputs(x), None if added is None else added.double())
        torch.testing.assert_close(actual(x, added).double(), expected, rtol=2**-8, atol=2**-6)


@targets
def test_rows_of_zeros_are_zero(target: str) -> None:
    """An input without a largest element gives zero and no NaN."""
    assert (native_backend(target).linear(random_int4(40, 64))(torch.zeros(3, 64).bfloat16()) == 0).all()


@targets
def test_the_weight_is_read_by_all_threads(target: str) -> None:
    """Every column of many tiles is the product, also for one row, whose epilogue is put off for several tiles."""
    torch.manual_seed(0)
    weight = random_int4(512 * torch.get_num_threads() + 7, 64)
    for rows in (1, 6, 40):
        x = torch.randn(rows, 64).bfloat16()
        assert_product(native_backend(target).linear(weight)(x), x, weight)
