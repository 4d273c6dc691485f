"""The roofline model against figures computed by hand."""

import pytest
from benchmarks.hardware import DEVICES
from benchmarks.kernel_costs import W8A8, Work, cost_of, gemm, kv_bytes, linear_costs
from benchmarks.roofline import attention_launches as launches
from benchmarks.roofline import layer_costs, num_kernels, step_costs

from peregrine_kernels.aot.shapes import SHAPES

SHAPE = {shape.name: shape for shape in SHAPES}
DEVICE = {device.name: device for device in DEVICES}


def milliseconds(model: str, work: Work, device: str, kind: str = "") -> float:
    costs = step_costs(SHAPE[model], work, kind, has_fp8=DEVICE[device].fp8_flops_per_second > 0)
    return sum(cost.seconds(DEVICE[device]) for cost in costs) * 1e3


@pytest.mark.parametrize(("device", "expected"), [("A10G", 23.1), ("A100", 6.8), ("H100", 4.13), ("H200", 2.89)])
def test_a_lone_decode_of_falcon_7b_reads_13_8_gigabytes(device: str, expected: float) -> None:
    """6.92 billion weights of two bytes over the device's bandwidth."""
    work = Work(1, 1, 128)
    assert sum(cost.num_bytes for cost in step_costs(SHAPE["falcon-7b"], work)) == pytest.approx(13.84e9, rel=0.01)
    assert milliseconds("falcon-7b", work, device) == pytest.approx(expected, rel=0.01)


def test_the_cache_of_64_sequences_of_falcon_7b() -> None:
    """8 KiB a token over all layers: 1.07 GB at 2,048 tokens each."""
    work = Work(64, 1, 2048)
    _, attention, _ = launches(SHAPE["falcon-7b"], work)
    assert 32 * kv_bytes(attention, work) == 64 * 2048 * 8192


def test_decode_attention_counts_padded_rows() -> None:
    """71 heads take 64 + 16 rows: two products of 2 * 80 * 64 operations for each token."""
    work = Work(2, 1, 1000)
    _, attention, _ = launches(SHAPE["falcon-7b"], work)
    assert cost_of(attention, work).flops == 2 * 1000 * 2 * (2 * 80 * 64)


def test_prefill_attention_is_causal() -> None:
    """A whole prompt of N tokens takes little more than half of N * N scores of every head, tiles included."""
    work = Work(1, 2048, 2048)
    _, attention = launches(SHAPE["falcon-40b"], work)
    whole = 4 * 64 * 128 * 2048 * 2048
    assert 0.5 < cost_of(attention, work).flops / whole < 0.54


def test_a_gemm() -> None:
    """Weights, inputs and outputs in two bytes each; a multiplication and an addition for each weight and row."""
    cost = gemm("any", 3, 5, 7)
    assert (cost.num_bytes, cost.flops) == (2 * (35 + 21 + 15), 2 * 3 * 35)


def test_prefill_is_bound_by_operations() -> None:
    """2,048 tokens of Falcon-7B: twice its layers' 6.63 billion weights for each, at H100's peak, and a little more."""
    products = 2 * 6.63e9 * 2048 / 989e12 * 1e3
    assert products < milliseconds("falcon-7b", Work(1, 2048, 2048), "H100") < 1.2 * products


@pytest.mark.parametrize(("rows", "more"), [(1, 0), (8, 1)])
@pytest.mark.parametrize(("model", "count"), [("falcon-7b", 6), ("falcon-40b", 6), ("falcon-rw-1b", 8)])
def test_kernels_of_a_layer(model: str, count: int, rows: int, more: int) -> None:
    """Norm, qkv, rotary, attention, up, output; two more if not parallel; of several rows, the activation apart."""
    work, count = Work(rows, 1, 128), count + more
    assert len([*layer_costs(SHAPE[model], work)]) == count
    assert num_kernels(SHAPE[model], work) == SHAPE[model].num_layers * count + 3


@pytest.mark.parametrize(
    ("model", "kind", "device", "gigabytes", "expected"),
    [
        ("falcon-40b", "int8", "A100", 41.3, 20.3),
        ("falcon-7b", "int8", "A10G", 6.92, 11.5),
        ("falcon-7b", "int4", "A10G", 3.82, 6.4),
        ("falcon-40b", "int4", "A100", 22.2, 10.9),
    ],
)
def test_a_lone_decode_of_packed_weights(model: str, kind: str, device: str, gigabytes: float, expected: float) -> None:
    """A byte a weight, or half a byte and two for 64, with a head of a byte a weight, over the bandwidth."""
    work = Work(1, 1, 128)
    costs = step_costs(SHAPE[model], work, kind)
    assert sum(cost.num_bytes for cost in costs) / 1e9 == pytest.approx(gigabytes, rel=0.01)
    assert milliseconds(model, work, device, kind) == pytest.approx(expected, rel=0.02)


def test_a_step_of_packed_weights() -> None:
    """Falcon-7B in 4 bits: 8 decodes read 4 splits of sums beside the weights, and are less than a tenth slower than
    one; a prompt pays for dequantizing, a quarter of its time at an H100's peaks at most."""
    one, eight = (milliseconds("falcon-7b", Work(rows, 1, 128), "H100", "int4") for rows in (1, 8))
    assert one < eight < 1.1 * one
    prompt = Work(1, 2048, 2048)
    assert 1 < milliseconds("falcon-7b", prompt, "H100", "int4") / milliseconds("falcon-7b", prompt, "H100") < 1.25


def test_a_linear_that_rounds_its_inputs() -> None:
    """Where tensor cores multiply fp8: inputs are read in two bytes and written in one, with a scale a row, then a
    weight is read in its order and written in rows, then both are multiplied; elsewhere it is dequantized."""
    rows, out_features, in_features = 512, 4096, 8192
    rounding, back, product = linear_costs("any", rows, out_features, in_features, W8A8, has_fp8=True)
    assert rounding.num_bytes == rows * (3 * in_features + 4)
    assert back.num_bytes == 2 * out_features * in_features
    assert product.num_bytes == (out_features + rows) * in_features + 2 * rows * out_features
    assert product.seconds(DEVICE["H100"]) == product.flops / 1979e12
    names = [cost.kernel for cost in linear_costs("any", rows, out_features, in_features, W8A8)]
    assert names == ["round_inputs", "dequantize", "any"]


@pytest.mark.parametrize(("device", "model", "times"), [("H100", "falcon-7b", 1.34), ("H200", "falcon-40b", 1.54)])
def test_a_prompt_of_rounded_inputs(device: str, model: str, times: float) -> None:
    """Faster than in bfloat16, if less than twice: attention, and bringing weights back in rows, are as long."""
    work = Work(1, 2048, 2048)
    assert milliseconds(model, work, device) / milliseconds(model, work, device, W8A8) == pytest.approx(times, abs=0.01)
