"""Linears of quantized weights as compiled for the GPU at hand, against the weights dequantized on it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from packed_weights import QUANTIZE
from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.dequantize import dequantize_launch
from peregrine_kernels.gpu.float8_linear import Float8Linear
from peregrine_kernels.gpu.fragment_order import fragment_order
from peregrine_kernels.gpu.linear import QuantizedLinear
from peregrine_kernels.reference.backend import ACTIVATIONS
from peregrine_kernels.reference.rounded_inputs import round_inputs
from peregrine_kernels.weights import dequantized

pytestmark = pytest.mark.gpu

BACKEND = TritonBackend()
BOUNDS = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
kinds = pytest.mark.parametrize("kind", QUANTIZE)


def made(kind: str, out_features: int, in_features: int, device: torch.device) -> tuple[QuantizedLinear, Tensor]:
    """A linear without an epilogue, and its weight in float64."""
    torch.manual_seed(0)
    weight = QUANTIZE[kind](torch.randn(out_features, in_features, device=device) / in_features**0.5)
    return QuantizedLinear(weight, None, None), dequantized(weight, torch.float64)


def assert_graph_replays(linear: QuantizedLinear, x: Tensor) -> None:
    """A graph of the product gives what the product does."""
    eager = linear(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = linear(x)
    graph.replay()
    assert torch.equal(out, eager)


@kinds
@pytest.mark.parametrize("dtype", BOUNDS)
def test_values_are_those_of_the_weight(device: torch.device, kind: str, dtype: torch.dtype) -> None:
    """Dequantized to the bit, in every type."""
    weight = QUANTIZE[kind](torch.randn(150, 576, device=device))
    out = torch.empty(150, 576, dtype=dtype, device=device)
    dequantize_launch(fragment_order(weight), out)()
    assert torch.equal(out, dequantized(weight, dtype))


@kinds
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("out_features", "in_features"), [(4672, 4544), (4544, 22720), (16384, 2048), (1000, 192)])
def test_products(device: torch.device, kind: str, out_features: int, in_features: int, dtype: torch.dtype) -> None:
    """One row, every number of rows that has a kernel of its own, and many; inputs split and not."""
    linear, weight = made(kind, out_features, in_features, device)
    for rows in (1, 2, 16, 17, 33, 64, 65, 256, 257):
        x = torch.randn(rows, in_features, device=device).to(dtype)
        torch.testing.assert_close(
            linear(x), (x.double() @ weight.T).to(dtype), rtol=BOUNDS[dtype], atol=BOUNDS[dtype], msg=f"{rows} rows"
        )


@kinds
@pytest.mark.parametrize("rows", [1, 5, 256, 257])
@pytest.mark.parametrize("out_features", [1000, 16384])
def test_epilogue_into_a_part_of_wider_rows(device: torch.device, kind: str, rows: int, out_features: int) -> None:
    """Bias and activation, where inputs are split and where not; columns beside the part stay as they are."""
    linear, weight = made(kind, out_features, 2048, device)
    bias, x = torch.randn(out_features, device=device).bfloat16(), torch.randn(rows, 2048, device=device).bfloat16()
    wide = torch.full((rows, out_features + 64), 7.0, device=device, dtype=torch.bfloat16)
    linear.bias, linear.activation = bias, "gelu"
    linear.into(x, wide[:, 16:-48])
    expected = ACTIVATIONS["gelu"](x.double() @ weight.T + bias.double()).bfloat16()
    torch.testing.assert_close(wide[:, 16:-48], expected, rtol=3e-2, atol=3e-2)
    assert (wide[:, :16] == 7.0).all()
    assert (wide[:, -48:] == 7.0).all()


@kinds
def test_a_row_does_not_depend_on_the_rows_beside_it(device: torch.device, kind: str) -> None:
    """To the bit, of 2 to 16 rows as of 17 to 32, each time."""
    linear, _ = made(kind, 4544, 4544, device)
    x = torch.randn(32, 4544, device=device).bfloat16()
    together = linear(x)
    assert torch.equal(together, linear(x))
    for rows in (2, 3, 16, 17, 31):
        assert torch.equal(linear(x[:rows].contiguous()), together[:rows])


@pytest.mark.parametrize(("out_features", "in_features"), [(4672, 4544), (4544, 22720), (65024, 4544), (1000, 192)])
def test_rounded_inputs(device: torch.device, out_features: int, in_features: int) -> None:
    """By every kernel, of fp8's own GEMM or not, the oracle's product: of a row the same however many there are."""
    weight = quantize_fp8(torch.randn(out_features, in_features, device=device) / in_features**0.5)
    linear = Float8Linear(replace(weight, rounds_inputs=True), None, None)
    x = torch.randn(300, in_features, device=device).bfloat16()
    codes, scales = round_inputs(x)
    expected = ((codes.double() * scales) @ weight.dequantize().double().T).bfloat16()
    wide = torch.full((300, out_features + 16), 7.0, device=device, dtype=torch.bfloat16)
    for rows in (1, 2, 32, 64, 256, 257, 300):
        linear.into(x[:rows], wide[:rows, 8:-8])
        torch.testing.assert_close(wide[:rows, 8:-8], expected[:rows], rtol=2e-2, atol=2e-2, msg=f"{rows} rows")
    assert (wide[:, :8] == 7.0).all()
    assert (wide[:, -8:] == 7.0).all()


def test_a_graph_replays_products_of_rounded_inputs(device: torch.device) -> None:
    """Products of more than 256 rows are right, by torch's GEMM."""
    weight = quantize_fp8(torch.randn(4544, 4544, device=device))
    linear = Float8Linear(replace(weight, rounds_inputs=True), None, None)
    assert_graph_replays(linear, torch.randn(512, 4544, device=device).bfloat16())


def test_a_graph_replays_products(device: torch.device) -> None:
    """Partial sums are the graph's own memory."""
    linear, _ = made("int4", 4544, 4544, device)
    assert_graph_replays(linear, torch.randn(8, 4544, device=device).bfloat16())
