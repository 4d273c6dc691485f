"""The roofline of a plan, by hand."""

import pytest

from deployments import deployment
from peregrine_router.planning.plan import Plan
from peregrine_router.planning.speed import decode_speeds, prompt_speed


def test_a_lone_decode_reads_the_weights() -> None:
    """7B on an A10G: 13.84 GB and the K and V of 1,024 tokens, at 600 GB a second; 128 are bound
    by two operations for each of 6.92 billion weights and a row, at 70 teraflops."""
    speeds = decode_speeds(Plan.of(deployment("falcon-7b", "a10g")))
    assert speeds[1] == pytest.approx(0.6e12 / (13.843e9 + 1024 * 8192), rel=1e-3)
    assert speeds[128] == pytest.approx(70e12 / (2 * 6.921e9), rel=1e-3)


def test_a_table_beside_the_head_is_not_read() -> None:
    """int8: a byte for each weight of layers and head, not the 1.07 GB of the embedding table."""
    speeds = decode_speeds(Plan.of(deployment("falcon-40b", "a100-80g", quantize="int8")))
    assert speeds[1] == pytest.approx(2.039e12 / (40.77e9 + 0.533e9 + 1024 * 122_880), rel=2e-3)


def test_prompts_are_bound_by_arithmetic() -> None:
    """Two operations a weight of the layers; two devices do twice as many."""
    one, two = (Plan.of(deployment("falcon-40b", "h200", num_shards=count)) for count in (1, 2))
    assert prompt_speed(one) == pytest.approx(989e12 / (2 * 40.77e9), rel=1e-3)
    assert prompt_speed(two) == pytest.approx(2 * 989e12 / (2 * 40.77e9), rel=1e-3)


@pytest.mark.parametrize(("device", "teraflops"), [("h200", 1979), ("l40s", 733), ("a100-80g", 312)])
def test_prompts_of_rounded_inputs_are_bound_by_arithmetic_in_fp8(device: str, teraflops: float) -> None:
    """Where a device has it; decodes are multiplied in bfloat16."""
    plain, rounding = (
        Plan.of(deployment("falcon-7b", device, quantize=name, max_total_tokens=256)) for name in ("fp8", "fp8-w8a8")
    )
    assert prompt_speed(rounding) == pytest.approx(teraflops * 1e12 / (2 * 6.626e9), rel=1e-3)
    assert decode_speeds(rounding) == decode_speeds(plain)


def test_nothing_is_said_of_an_unknown_device() -> None:
    """Memory alone gives no speed; nor is there one of a model that does not fit."""
    unknown = Plan.of(deployment("falcon-7b", "24"))
    assert decode_speeds(unknown) == {}
    assert prompt_speed(unknown) is None
    assert decode_speeds(Plan.of(deployment("falcon-180b", "a10g"))) == {}


def test_weights_on_the_host_are_read_over_its_link() -> None:
    """An A100 copies 32 GB a second, in every step; 128 requests take no longer than one."""
    plan = Plan.of(deployment("falcon-40b", "a100-80g", cpu_offload_gb=20))
    speeds = decode_speeds(plan)
    assert speeds[1] == pytest.approx(32e9 / plan.host_bytes, rel=1e-6)
    assert speeds[max(speeds)] == pytest.approx(max(speeds) * speeds[1], rel=1e-6)
