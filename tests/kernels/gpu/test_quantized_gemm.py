"""Products of few rows with a quantized weight: how they are divided, and the order of each tensor core's registers."""

import pytest
import torch

from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.aot.weights import meta_weights
from peregrine_kernels.gpu.fragment_order import COLUMNS, fragment_order
from peregrine_kernels.gpu.linear import QuantizedLinear, panel_rows
from peregrine_kernels.gpu.quantized_gemm import MAX_ROWS, GemmPlan
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.weights import dequantized


def linears(shape: Shape) -> list[tuple[int, int]]:
    hidden, attended, ffn = shape.hidden_size, shape.num_heads * shape.head_dim, shape.ffn_size
    sums = [attended + ffn] if shape.is_parallel else [attended, ffn]
    inputs = [(shape.qkv_size, hidden), (ffn, hidden), (shape.vocab_size, hidden)]
    return inputs + [(hidden, size) for size in sums]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_splits_cover_the_inputs(shape: Shape) -> None:
    """Every chunk is in one split, none is empty, and there are programs for two of three processors of an H200."""
    for out_features, in_features in linears(shape):
        for weight in map(fragment_order, meta_weights(out_features, in_features).values()):
            for rows in (2, 64):
                plan = GemmPlan.of(weight, rows)
                chunks = -(-in_features // COLUMNS[weight.kind])
                assert (plan.splits - 1) * plan.chunks_per_split < chunks <= plan.splits * plan.chunks_per_split
                assert plan.blocks * plan.tiles * 16 >= out_features
                assert plan.blocks * plan.splits >= 88


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_partial_sums_take_less_than_a_panel(shape: Shape) -> None:
    """The memory for the largest dequantized panel of a model, which is planned for, is enough for the sums."""
    sums, panels = 0, 0
    for out_features, in_features in linears(shape):
        weight = fragment_order(meta_weights(out_features, in_features)["int4"])
        x = torch.empty(MAX_ROWS, in_features, device="meta")
        partials = GemmPlan.of(weight, MAX_ROWS).partials(x, out_features)
        sums = max(sums, 0 if partials is None else partials.nbytes)
        panels = max(panels, 2 * panel_rows(out_features) * in_features)
    assert 0 < sums <= panels


def test_a_rows_sums_are_divided_alike_up_to_32_rows() -> None:
    """A row meets the same splits whatever is beside it."""
    weight = fragment_order(meta_weights(4544, 4544)["int4"])
    assert len({GemmPlan.of(weight, rows) for rows in range(2, 33)}) == 1


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_inputs_in_the_order_of_each_tensor_core(kind: str, capability: int) -> None:
    """wgmma's registers hold pairs of columns, mma's four in a row: the same product, inputs in two splits whose last
    chunks are odd."""
    weight = quantize_int4(torch.randn(72, 1088), 64) if kind == "int4" else quantize_rows(torch.randn(72, 1056), 127)
    x, out = torch.randn(3, weight.shape[1]), torch.full((3, 72), torch.nan)
    launches = QuantizedLinear(weight, None, None).launches(x, out, capability)
    assert [launch.kernel.__name__ for launch in launches] == ["quantized_gemm_kernel", "sum_splits_kernel"]
    for launch in launches:
        launch()
    torch.testing.assert_close(out, x @ dequantized(weight, torch.float32).T, rtol=1e-4, atol=1e-4)
