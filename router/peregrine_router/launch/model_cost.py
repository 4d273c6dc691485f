"""The cost of the model's steps on the shards that are ready."""

from peregrine_router.hardware import Roof, roof_of
from peregrine_router.observability.model_cost import ModelCost
from peregrine_server.models.interface import ModelConfig
from peregrine_server.protocol import Ready


def model_cost(config: ModelConfig, ready: list[Ready]) -> ModelCost:
    """The cost of a step on all shards together; with their peaks, if all are devices whose peaks are known."""
    weights, roofs = config.linear_weights, [roof_of(shard.device_name) for shard in ready]
    known = [roof for roof in roofs if roof is not None]
    return ModelCost(
        layer_weights=weights.layers,
        head_weights=weights.head,
        weight_bytes=sum(shard.weight_bytes + shard.host_bytes for shard in ready),
        kv_bytes_per_token=sum(shard.cache.kv_bytes_per_token for shard in ready),
        host_bytes=sum(shard.host_bytes for shard in ready),
        roof=Roof(*map(sum, zip(*known, strict=True))) if len(known) == len(ready) else None,
    )
