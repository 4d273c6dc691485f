"""The least time of a planned model's steps: the roofline that a running server's metrics have, too."""

from dataclasses import replace

from peregrine_router.hardware import Roof
from peregrine_router.interfaces import EngineStats
from peregrine_router.observability.model_cost import ModelCost
from peregrine_router.options.batching import STEP_TOKENS
from peregrine_router.planning.plan import MAX_BATCH_SIZE, Plan
from peregrine_server.models.formats.interface import rounds_inputs


def decode_speeds(plan: Plan) -> dict[int, float]:
    """Requests at once -> tokens a second of all of them at the roof, for one request and for as many as fit, each half
    as long as it may be. Empty if the device's peaks are not known."""
    context = plan.deployment.max_total_tokens // 2
    counts = sorted({1, min(MAX_BATCH_SIZE, plan.num_requests)}) if plan.fits else ()
    speeds = {}
    for count in counts:
        step = EngineStats(steps=1, step_tokens=count, generated_tokens=count, context_tokens=count * context)
        if (seconds := _cost(plan).least_seconds(step)) is not None:
            speeds[count] = count / seconds
    return speeds


def prompt_speed(plan: Plan) -> float | None:
    """Tokens of prompts a second at the roof, in the largest step; of fp8 where inputs are rounded to it."""
    tokens = STEP_TOKENS["cuda"]
    cost = _cost(plan)
    if cost.roof is not None and cost.roof.fp8_flops_per_second and rounds_inputs(plan.deployment.format):
        cost = replace(cost, roof=cost.roof._replace(flops_per_second=cost.roof.fp8_flops_per_second))
    seconds = cost.least_seconds(EngineStats(steps=1, step_tokens=tokens, generated_tokens=1))
    return None if seconds is None else tokens / seconds


def _cost(plan: Plan) -> ModelCost:
    shards, weights = plan.deployment.num_shards, plan.deployment.model.config.linear_weights
    roof = plan.deployment.device.roof
    return ModelCost(
        layer_weights=weights.layers,
        head_weights=weights.head,
        weight_bytes=shards * plan.footprint.read_bytes,
        host_bytes=plan.host_bytes,
        kv_bytes_per_token=plan.kv_bytes_per_token,
        roof=None if roof is None else Roof(*(shards * peak for peak in roof)),
    )
