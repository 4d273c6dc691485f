"""The choice of a weight format where none is given, and what to change where nothing fits."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from peregrine_router.hardware import DEVICES, GIB
from peregrine_router.options.model import KVCacheDtype
from peregrine_router.planning.models import PlannedModel
from peregrine_router.planning.plan import BLOCK_SIZE, Deployment, Plan
from peregrine_server.models.formats.registry import format_names

MORE_SHARDS = (2, 3, 4, 6, 8, 16)
KV_CACHE_DTYPES: tuple[str, ...] = get_args(KVCacheDtype)
"""Types of 8 bits; the first is proposed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to a question: the plan, and what was turned down for it or would fit instead."""

    plan: Plan
    rejected: tuple[Plan, ...]
    """Plans of formats that come first and do not fit."""
    alternatives: tuple[Plan, ...]
    """The nearest deployments that fit, if the plan does not."""


def all_formats(model: PlannedModel) -> tuple[str | None, ...]:
    """Weight formats in the order of preference: unquantized, then as the registry has them; as the checkpoint has them
    where that is quantized."""
    return (None,) if model.stored else (None, *format_names())


def choose(deployment: Deployment, formats: Sequence[str | None]) -> Choice:
    """The plan in the first of `formats` that fits, else in the one that needs least."""
    rejected: list[Plan] = []
    for plan in _in_formats(deployment, formats):
        if plan.fits:
            return Choice(plan, tuple(rejected), ())
        rejected.append(plan)
    smallest = min(rejected, key=lambda plan: plan.needed_bytes)
    others = tuple(plan for plan in rejected if plan is not smallest)
    return Choice(smallest, others, tuple(_alternatives(smallest, formats)))


def first_that_fits(deployments: Iterable[Deployment], formats: Sequence[str | None]) -> Plan | None:
    """The first deployment that fits in one of `formats`, in the first such format."""
    return next((plan for each in deployments for plan in _in_formats(each, formats) if plan.fits), None)


def _in_formats(deployment: Deployment, formats: Sequence[str | None]) -> Iterator[Plan]:
    return (Plan.of(replace(deployment, quantize=quantize)) for quantize in formats)


def _alternatives(plan: Plan, formats: Sequence[str | None]) -> Iterator[Plan]:
    """The nearest that fit, with one thing changed: format, KV cache, context, number of shards, device. If that is not
    enough, shards and format; if nothing else is, weights in the host's memory."""
    deployment, every = plan.deployment, all_formats(plan.deployment.model)
    changes: list[tuple[list[Deployment], Sequence[str | None]]] = [
        ([deployment], [each for each in every if each not in formats]),
        (_with_smaller_cache(deployment), formats),
        (_with_shorter_context(plan), formats),
        (_with_more_shards(deployment), formats),
        (_on_larger_devices(deployment), formats),
    ]
    found = [fitting for each in changes if (fitting := first_that_fits(*each)) is not None]
    if not found and (both := first_that_fits(_with_more_shards(deployment), every)) is not None:
        found = [both]
    if not found and (offloaded := first_that_fits(_with_offload(plan), formats)) is not None:
        found = [offloaded]
    yield from found


def _with_smaller_cache(deployment: Deployment) -> list[Deployment]:
    return [] if deployment.kv_cache_dtype else [replace(deployment, kv_cache_dtype=KV_CACHE_DTYPES[0])]


def _with_shorter_context(plan: Plan) -> list[Deployment]:
    tokens = plan.num_blocks * BLOCK_SIZE
    return [replace(plan.deployment, max_total_tokens=tokens)] if tokens else []


def _with_offload(plan: Plan) -> list[Deployment]:
    missing = plan.needed_bytes - plan.deployment.device.memory_bytes
    gibibytes = plan.deployment.cpu_offload_gb + math.ceil(missing / GIB)
    return [] if plan.deployment.is_on_cpu else [replace(plan.deployment, cpu_offload_gb=gibibytes)]


def _with_more_shards(deployment: Deployment) -> list[Deployment]:
    """On a CPU shards share the memory that there is."""
    more = [count for count in MORE_SHARDS if count > deployment.num_shards and not deployment.is_on_cpu]
    return [replace(deployment, num_shards=count) for count in more]


def _on_larger_devices(deployment: Deployment) -> list[Deployment]:
    if deployment.is_on_cpu:
        return []
    devices = sorted(DEVICES, key=lambda device: device.memory_bytes)
    larger = [device for device in devices if device.memory_bytes > deployment.device.memory_bytes]
    return [replace(deployment, device=device) for device in larger]
