"""Plans against published figures, and against models that are loaded."""

from pathlib import Path

import pytest

from checkpoints import build_model, write_checkpoint
from cpu_backends import native
from deployments import deployment
from peregrine_router.hardware import GIB
from peregrine_router.launch.model_files import demo_path
from peregrine_router.planning import devices
from peregrine_router.planning.plan import BLOCK_SIZE, MAX_BATCH_SIZE, Plan
from peregrine_server.execution import memory_profile
from runners import load_runner

FREE_BYTES = 10_000_001
"""Little, and odd: half of it holds neither all requests nor whole tokens."""


@pytest.mark.parametrize(
    ("model", "quantize", "num_shards", "gigabytes"),
    [
        ("falcon-7b", None, 1, 15),
        ("falcon-40b", None, 2, 90),
        ("falcon-40b", "int8", 1, 45),
        ("falcon-40b", "nf4", 1, 27),
    ],
)
def test_memory_needed_is_what_was_published(model: str, quantize: str | None, num_shards: int, gigabytes: int) -> None:
    """Within 5 %: weights, largest step, graphs, CUDA, and K and V of one request of 2,048 tokens, of all devices that
    it takes (40B in bfloat16: two of 80 GB). 27 GB was published for bitsandbytes' nf4."""
    plan = Plan.of(deployment(model, "a100-80g", quantize=quantize, num_shards=num_shards))
    assert plan.fits
    assert num_shards * plan.needed_bytes / 1e9 == pytest.approx(gigabytes, rel=0.05)


@pytest.mark.parametrize(
    ("model", "quantize", "gigabytes"),
    [
        ("falcon-7b", None, 13.84),
        ("falcon-40b", None, 82.6),
        ("falcon-40b", "int8", 40.77 + 3 * 0.533),
        ("falcon-40b", "int4", 40.77 * 34 / 64 + 3 * 0.533),
        ("falcon-180B", None, 357.1),
        ("falcon-180B", "int8", 177.6 + 3 * 0.965),
        ("falcon-180B", "int4", 177.6 * 34 / 64 + 3 * 0.965),
    ],
)
def test_weights_alone(model: str, quantize: str | None, gigabytes: float) -> None:
    """Linears in the format (int4: 34 bytes for 64 inputs), a head of 8 bits, an embedding table of 16."""
    plan = Plan.of(deployment(model, "h200", quantize=quantize))
    assert plan.weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.002)


def test_keys_and_values_of_2048_tokens() -> None:
    """40B: 240 MiB, published as 240 MB. 7B: 16 MiB, published as 20 MB, which 16.8 MB are in whole tens."""
    each = {model: Plan.of(deployment(model, "h200")).kv_bytes_per_token for model in ("falcon-7b", "falcon-40b")}
    assert 2048 * each["falcon-40b"] == 240 * 2**20
    assert 2048 * each["falcon-7b"] == 16 * 2**20
    assert round(2048 * each["falcon-7b"] / 1e6, -1) == 20


def test_int8_of_40b_leaves_room_on_one_a100() -> None:
    """At least 100,000 tokens of KV."""
    assert Plan.of(deployment("falcon-40b", "a100-80g", quantize="int8")).kv_tokens >= 100_000


@native
@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("variant", ["demo", "7b", "40b", "11b", "rw-1b"])
def test_a_shard_finds_what_was_planned(
    variant: str, quantize: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of weights, bytes of a token and number of blocks of a loaded model, with so much memory left beside its
    weights, are those of the plan for a CPU with both."""
    path = demo_path() if variant == "demo" else write_checkpoint(tmp_path, build_model(variant))
    sized = Plan.of(deployment(str(path), "cpu", quantize=quantize))
    monkeypatch.setattr(devices, "available_memory", lambda: FREE_BYTES + sized.weight_bytes)
    before_and_after = iter([FREE_BYTES + sized.weight_bytes, FREE_BYTES])
    monkeypatch.setattr(memory_profile, "available_memory", lambda: next(before_and_after))
    plan = Plan.of(deployment(str(path), "cpu", quantize=quantize))
    ready = load_runner(
        path,
        dtype="bfloat16",
        quantize=quantize,
        max_batch_size=MAX_BATCH_SIZE,
        max_total_tokens=plan.deployment.max_total_tokens,
        max_batch_total_tokens=None,
        block_size=BLOCK_SIZE,
    ).ready
    assert plan.fits
    assert (plan.weight_bytes, plan.kv_bytes_per_token) == (ready.weight_bytes, ready.cache.kv_bytes_per_token)
    assert plan.num_blocks == ready.num_blocks < MAX_BATCH_SIZE * plan.deployment.max_total_tokens // BLOCK_SIZE


def test_a_device_of_the_memory_that_is_needed_is_enough() -> None:
    """One byte less is not."""
    plan = Plan.of(deployment("falcon-7b", "a10g"))
    assert Plan.of(deployment("falcon-7b", str(plan.needed_bytes / GIB))).num_requests == 1
    assert not Plan.of(deployment("falcon-7b", str((plan.needed_bytes - 1) / GIB))).fits


def test_shards_share_a_cpus_memory() -> None:
    """Two hold about what one does, and need no less."""
    one, two = (Plan.of(deployment("falcon-7b", "cpu", num_shards=count)) for count in (1, 2))
    assert two.weight_bytes == pytest.approx(one.weight_bytes, rel=0.02)
    assert two.needed_bytes > one.needed_bytes


@pytest.mark.parametrize(
    ("device", "changes", "options"),
    [
        ("a10g", {}, ""),
        ("cpu", {"quantize": "int8"}, "--device cpu --quantize int8"),
        ("t4", {}, "--dtype float16"),
        ("t4", {"quantize": "int8"}, "--quantize int8"),
        (
            "l4",
            {"kv_cache_dtype": "int8", "max_total_tokens": 4096},
            "--kv-cache-dtype int8 --max-total-tokens 4096",
        ),
    ],
)
def test_the_command_has_what_differs_from_the_defaults(device: str, changes: dict[str, object], options: str) -> None:
    """And the number of shards, which is every visible GPU by default."""
    words = set(deployment("falcon-7b", device, **changes).command.split())
    assert words == {*["peregrine", "serve", "--model-id", "tiiuae/falcon-7b", "--num-shard", "1"], *options.split()}


@pytest.mark.parametrize("num_shards", [1, 2])
def test_offloaded_weights_leave_room_for_the_cache(num_shards: int) -> None:
    """On each GPU at least what was asked for, at most two layers more; it is the cache's, and the line that serves it
    says so. A step reads as many weights as without."""
    whole, offloaded = (
        Plan.of(deployment("falcon-40b", "a100-40g", quantize="int4", num_shards=num_shards, cpu_offload_gb=gib))
        for gib in (0.0, 2.5)
    )
    layer = offloaded.footprint.buffer_bytes // 2
    saved = whole.profile.weights - offloaded.profile.weights
    assert 2.5 * GIB <= saved < 2.5 * GIB + 2 * layer
    assert offloaded.footprint.host_bytes == saved + 2 * layer
    assert offloaded.profile.kv_bytes - whole.profile.kv_bytes == saved
    assert offloaded.deployment.command.endswith("--quantize int4 --cpu-offload-gb 2.5")
    assert offloaded.footprint.read_bytes == whole.footprint.read_bytes
