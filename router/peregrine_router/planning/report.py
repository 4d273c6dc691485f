"""A plan in words, for people, and in JSON, for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from peregrine_router.hardware import GIB
from peregrine_router.launch.memory_lines import memory_lines
from peregrine_router.options.batching import STEP_TOKENS
from peregrine_router.planning.choices import Choice
from peregrine_router.planning.plan import MAX_BATCH_SIZE, Deployment, Plan
from peregrine_router.planning.speed import decode_speeds, prompt_speed
from peregrine_server.execution.memory_budget import CPU_KV_FRACTION


def as_text(choice: Choice) -> str:
    """The whole answer, in lines of at most 120 characters but for commands."""
    deployment = choice.plan.deployment
    sections = (
        [f"{deployment.model.name} on {place(deployment)}: {_verdict(choice.plan)}", deployment.model.config.summary()],
        [*_table(choice.plan)],
        [*_rejections(choice), *_speeds(choice.plan)],
        *(_commands(choice.plan) if choice.plan.fits else [[*_alternatives(choice.alternatives)]]),
    )
    return "\n\n".join("\n".join(section) for section in sections if section)


def as_json(choice: Choice) -> dict[str, Any]:
    """Bytes with `weights_` and `host_`, and `kv_bytes_per_token`, are of all shards, other bytes of each device."""
    plan = choice.plan
    return {
        **_facts(plan),
        "memory_bytes": plan.profile.total if not plan.deployment.is_on_cpu else plan.deployment.device.memory_bytes,
        "needed_bytes": plan.needed_bytes,
        "activation_bytes": plan.profile.activations,
        "reserved_bytes": plan.profile.graphs + plan.profile.others,
        "tokens_per_second": {str(count): round(speed, 1) for count, speed in decode_speeds(plan).items()},
        "prompt_tokens_per_second": round(speed) if (speed := prompt_speed(plan)) else None,
        "rejected": [
            {"quantize": each.deployment.quantize, "needed_bytes": each.needed_bytes} for each in choice.rejected
        ],
        "alternatives": [_facts(each) for each in choice.alternatives],
    }


def _facts(plan: Plan) -> dict[str, Any]:
    deployment = plan.deployment
    return {
        "model_id": deployment.model.name,
        "device": deployment.device.name,
        "num_shard": deployment.num_shards,
        "dtype": deployment.dtype,
        "quantize": deployment.quantize,
        "kv_cache_dtype": deployment.kv_cache_dtype,
        "max_total_tokens": deployment.max_total_tokens,
        "fits": plan.fits,
        "cpu_offload_gb": deployment.cpu_offload_gb,
        "weights_bytes": plan.weight_bytes,
        "host_bytes": plan.host_bytes,
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_tokens": plan.kv_tokens,
        "requests": plan.num_requests,
        "command": deployment.command,
    }


def place(deployment: Deployment) -> str:
    """The devices in a word or two."""
    return (
        deployment.device.name if deployment.num_shards == 1 else f"{deployment.num_shards} x {deployment.device.name}"
    )


def _verdict(plan: Plan) -> str:
    weights = f"{plan.deployment.weights} weights"
    return f"fits, with {weights}" if plan.fits else f"does not fit, with {weights}"


def _table(plan: Plan) -> Iterator[str]:
    """The memory of a device, line by line."""
    head = "bytes of each device" if plan.deployment.num_shards > 1 else ""
    yield f"{head:26}{'GB':>9}{'GiB':>9}"
    for name, num_bytes, remark in _cpu_rows(plan) if plan.deployment.is_on_cpu else _gpu_rows(plan):
        yield f"{name:26}{num_bytes / 1e9:9.2f}{num_bytes / GIB:9.2f}   {remark}".rstrip()


def _gpu_rows(plan: Plan) -> Iterator[tuple[str, int, str]]:
    profile = plan.profile
    yield "weights", profile.weights, plan.deployment.weights
    yield "largest step", profile.activations, f"{STEP_TOKENS['cuda']:,} tokens of prompts"
    yield "CUDA graphs, spare", profile.graphs, f"{MAX_BATCH_SIZE} requests at once"
    yield "CUDA and its libraries", profile.others, "estimated"
    yield "KV cache", plan.kv_bytes, _cache(plan)
    yield from _rest(plan, profile.total - profile.used - plan.kv_bytes)
    yield "memory", profile.total, ""
    if plan.footprint.host_bytes:
        yield "weights on the host", plan.footprint.host_bytes, "copied in every step"


def _cpu_rows(plan: Plan) -> Iterator[tuple[str, int, str]]:
    shards, total = plan.deployment.num_shards, plan.deployment.device.memory_bytes
    yield "weights", plan.weight_bytes, plan.deployment.weights
    yield "KV cache", plan.kv_bytes * shards, _cache(plan)
    rest = total - plan.weight_bytes - plan.kv_bytes * shards
    yield from _rest(plan, rest, f"{CPU_KV_FRACTION:.0%} of what weights leave stays free")
    yield "free memory", total, "now, on this machine"


def _rest(plan: Plan, num_bytes: int, remark: str = "") -> Iterator[tuple[str, int, str]]:
    if num_bytes < 0:
        yield "missing", plan.needed_bytes - plan.deployment.device.memory_bytes, "for one request of that length"
    else:
        yield "left", num_bytes, remark


def _cache(plan: Plan) -> str:
    kind = f" in {plan.deployment.kv_cache_dtype}" if plan.deployment.kv_cache_dtype else ""
    return f"{plan.kv_tokens:,} tokens of {plan.footprint.cache.kv_bytes_per_token:,} bytes{kind}: {_requests(plan)}"


def _rejections(choice: Choice) -> Iterator[str]:
    if choice.rejected:
        needs = [f"{each.deployment.weights} needs {each.needed_bytes / 1e9:.1f} GB" for each in choice.rejected]
        yield f"too large: {', '.join(needs)}"


def _speeds(plan: Plan) -> Iterator[str]:
    decode, prompts = decode_speeds(plan), prompt_speed(plan)
    if decode and prompts is not None:
        each = [f"{_rounded(speed)} with {count} request{'s' * (count > 1)}" for count, speed in decode.items()]
        yield f"tokens a second, at most: {', '.join(each)}; {prompts:,.0f} of prompts"
    elif plan.fits:
        yield "tokens a second: not known for this device"


def _rounded(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"


def _commands(plan: Plan) -> list[list[str]]:
    foretold = memory_lines(plan.weight_bytes, plan.kv_tokens, plan.kv_bytes_per_token, plan.deployment.kv_cache_dtype)
    return [[plan.deployment.command], ["At its start it says:", *foretold]]


def _alternatives(plans: Sequence[Plan]) -> Iterator[str]:
    yield "What fits:" if plans else "Nothing near it fits: more memory is needed."
    for plan in plans:
        yield f"  on {place(plan.deployment)}, {plan.deployment.weights}, {_requests(plan)} tokens:"
        yield f"    {plan.deployment.command}"


def _requests(plan: Plan) -> str:
    return f"{plan.num_requests} request{'s' * (plan.num_requests != 1)} of {plan.deployment.max_total_tokens:,}"
