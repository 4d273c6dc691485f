"""LayerNorm, activation and linear of the Triton backend, under Triton's interpreter, against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peregrine_kernels import DenseWeight, backend_for
from peregrine_kernels.dense_linear import DenseLinear
from peregrine_kernels.gpu.activation import NAMES, activation_launch
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.reference.backend import ACTIVATIONS, ReferenceBackend

REFERENCE, BACKEND = ReferenceBackend(), TritonBackend()
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3}

sizes = st.sampled_from([1, 2, 7, 64, 100, 1000, 1024, 4544])
dtypes = st.sampled_from([torch.float32, torch.float16])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 5), sizes, dtypes, st.integers(0, 99))
def test_layer_norm(num_rows: int, size: int, dtype: torch.dtype, seed: int) -> None:
    """Any number of rows of any size, none and one included."""
    torch.manual_seed(seed)
    x, weight, bias = torch.randn(num_rows, size) * 3 + 1, torch.randn(size), torch.randn(size)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    expected = REFERENCE.layer_norm(x, weight, bias, 1e-5)
    torch.testing.assert_close(
        BACKEND.layer_norm(x, weight, bias, 1e-5), expected, rtol=BOUNDS[dtype], atol=BOUNDS[dtype]
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), sizes, st.booleans(), st.integers(1, 2), dtypes, st.integers(0, 99))
def test_residual_and_layer_norms(
    num_rows: int, size: int, has_bias: bool, num_norms: int, dtype: torch.dtype, seed: int
) -> None:
    """The sum is the reference's to the bit, each norm of it to rounding, and x stays as it was."""
    torch.manual_seed(seed)
    x, delta = torch.randn(num_rows, size).to(dtype), torch.randn(num_rows, size).to(dtype)
    bias = torch.randn(size).to(dtype) if has_bias else None
    affines = [(torch.randn(size).to(dtype), torch.randn(size).to(dtype)) for _ in range(num_norms)]
    before = x.clone()
    expected, expected_norms = REFERENCE.add_layer_norms(x, delta.clone(), bias, affines, 1e-5)
    total, norms = BACKEND.add_layer_norms(x, delta.clone(), bias, affines, 1e-5)
    assert torch.equal(total, expected)
    assert torch.equal(x, before)
    for ours, theirs in zip(norms, expected_norms, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_activation_between_parts_of_wider_rows(name: str, dtype: torch.dtype) -> None:
    """Each activation reads and writes its columns alone, large values and zeros included."""
    x = torch.cat((torch.randn(3, 1400) * 4, torch.tensor([[0.0, 60.0, -60.0]] * 3)), dim=1).to(dtype)
    wide, out = torch.cat((torch.full((3, 8), torch.nan).to(dtype), x), dim=1), torch.full((3, 1450), 7.0, dtype=dtype)
    activation_launch(name, wide[:, 8:], None, out[:, 16 : 16 + x.shape[1]])()
    expected = ACTIVATIONS[name](x.float()).to(dtype)
    torch.testing.assert_close(out[:, 16 : 16 + x.shape[1]], expected, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])
    assert (out[:, :16] == 7.0).all()
    assert (out[:, 16 + x.shape[1] :] == 7.0).all()


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
def test_linear(rows: int, activation: str | None, has_bias: bool, has_residual: bool) -> None:
    """Product, bias, activation and residual in the reference's order."""
    torch.manual_seed(0)
    weight, x = torch.randn(200, 96), torch.randn(rows, 96)
    bias = torch.randn(200) if has_bias else None
    residual = torch.randn(rows, 200) if has_residual else None
    expected = REFERENCE.linear(DenseWeight(weight), bias, activation)(x, residual)
    torch.testing.assert_close(
        BACKEND.linear(DenseWeight(weight), bias, activation)(x, residual), expected, rtol=1e-5, atol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 1600), st.sampled_from([None, *ACTIVATIONS]), st.booleans(),
       st.sampled_from(list(BOUNDS)), st.integers(0, 99))  # fmt: skip
def test_one_row(
    out_features: int, in_features: int, activation: str | None, has_bias: bool, dtype: torch.dtype, seed: int
) -> None:
    """A linear of one row, into a part of a wider one, of fewer and more columns than a program takes at once."""
    torch.manual_seed(seed)
    weight = (torch.randn(out_features, in_features) / in_features**0.5).to(dtype)
    x, bias = torch.randn(1, in_features).to(dtype), torch.randn(out_features).to(dtype) if has_bias else None
    wide = torch.full((1, out_features + 9), 7.0, dtype=dtype)
    linear = BACKEND.linear(DenseWeight(weight), bias, activation)
    assert isinstance(linear, DenseLinear)
    linear.into(x, wide[:, 4:-5])
    expected = REFERENCE.linear(DenseWeight(weight.float()), None if bias is None else bias.float(), activation)(
        x.float()
    )
    torch.testing.assert_close(wide[:, 4:-5].float(), expected, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])
    assert (wide[:, :4] == 7.0).all()
    assert (wide[:, -5:] == 7.0).all()


def test_backend_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA gets this backend, and a CPU where it is asked for; another name is an error that lists the names."""
    assert isinstance(backend_for(torch.device("cuda")), TritonBackend)
    monkeypatch.setenv("PEREGRINE_BACKEND", "triton")
    assert isinstance(backend_for(torch.device("cpu")), TritonBackend)
    monkeypatch.setenv("PEREGRINE_BACKEND", "cuda")
    with pytest.raises(ValueError, match="cpu, triton, reference"):
        backend_for(torch.device("cpu"))


def test_every_activation_has_a_kernel() -> None:
    """The names of the reference are those of the kernel's table."""
    assert NAMES.keys() == ACTIVATIONS.keys()
