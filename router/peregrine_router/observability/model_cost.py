"""The cost of a model's steps in operations and bytes, beside the device's peaks: the roofline of a running server.

The model is that of `benchmarks/hardware.py`: two operations for each weight that a token is multiplied with, attention
aside; every step reads all weights, and the K and V of every token that it attends to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from peregrine_router.hardware import Roof
from peregrine_router.interfaces import EngineStats


@dataclass(frozen=True, slots=True)
class ModelCost:
    """The cost of a model on all its shards together."""

    layer_weights: int
    """Weights that every token is multiplied with."""
    head_weights: int
    """Weights of the output head, multiplied where a token is sampled."""
    weight_bytes: int
    kv_bytes_per_token: int
    roof: Roof | None
    """The peaks of all devices; None: not known."""
    host_bytes: int = 0
    """Weights that every step copies from the host's memory."""

    def flops(self, stats: EngineStats) -> float:
        """Operations since the start."""
        num_computed = stats.step_tokens + stats.draft_tokens
        num_sampled = stats.generated_tokens + stats.draft_tokens - stats.accepted_tokens
        return 2.0 * (num_computed * self.layer_weights + num_sampled * self.head_weights)

    def num_bytes(self, stats: EngineStats) -> float:
        """Bytes read since the start."""
        return float(stats.steps * self.weight_bytes + stats.context_tokens * self.kv_bytes_per_token)

    def least_seconds(self, stats: EngineStats) -> float | None:
        """Least time of those operations and bytes; None if the peaks are not known."""
        if self.roof is None:
            return None
        return max(
            self.num_bytes(stats) / self.roof.bytes_per_second,
            self.flops(stats) / self.roof.flops_per_second,
            stats.steps * self.host_bytes / self.roof.link_bytes_per_second,
        )

    def collect(self, stats: EngineStats) -> Iterable[Metric]:
        """The series: what was done, and the peaks by which their rates are divided where these are known."""
        yield CounterMetricFamily(
            "peregrine_model_flops_total", "Operations of the model's weights, two each.", self.flops(stats)
        )
        yield CounterMetricFamily(
            "peregrine_model_bytes_total", "Bytes of weights, keys and values read.", self.num_bytes(stats)
        )
        if self.roof is not None:
            yield GaugeMetricFamily(
                "peregrine_peak_flops_per_second",
                "Operations that the devices can do, dense and in bfloat16.",
                self.roof.flops_per_second,
            )
            yield GaugeMetricFamily(
                "peregrine_peak_bytes_per_second", "Bytes that the devices can read.", self.roof.bytes_per_second
            )
