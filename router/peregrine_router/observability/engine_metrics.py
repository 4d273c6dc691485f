"""The series that show the engine's statistics, read once a scrape."""

from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from peregrine_router.interfaces import EngineClient, EngineStats, ModelInfo
from peregrine_router.observability.model_cost import ModelCost

Read = Callable[[EngineStats], float]
GAUGES: tuple[tuple[str, str, Read], ...] = (
    ("tgi_queue_size", "Requests waiting for their first step.", lambda stats: stats.queue_size),
    ("tgi_batch_current_size", "Requests being computed.", lambda stats: stats.batch_size),
    ("peregrine_kv_blocks_used", "Blocks of the KV cache in use.", lambda stats: stats.kv_blocks_used),
    ("peregrine_kv_blocks_cached", "Unused blocks kept for prefix cache hits.", lambda stats: stats.kv_blocks_cached),
    ("peregrine_kv_blocks", "Blocks of the KV cache.", lambda stats: stats.kv_blocks_total),
    (
        "peregrine_kv_cache_usage_ratio",
        "Blocks of the KV cache in use, from 0 to 1: what an endpoint picker reads.",
        lambda stats: stats.kv_blocks_used / max(stats.kv_blocks_total, 1),
    ),
    (
        "peregrine_step_age_seconds",
        "Since when the shards work on their step; 0 if they have none.",
        lambda stats: stats.step_age,
    ),
)
"""(name, help, reader) of each gauge that shows the engine's statistics."""
COUNTERS: tuple[tuple[str, str, Read], ...] = (
    ("peregrine_preemptions_total", "Preemptions for lack of free blocks.", lambda stats: stats.preemptions),
    ("peregrine_prompt_tokens_total", "Prompt tokens of requests that began.", lambda stats: stats.prompt_tokens),
    ("peregrine_cached_tokens_total", "Of these, found in the prefix cache.", lambda stats: stats.cached_tokens),
    ("peregrine_generated_tokens_total", "Tokens generated.", lambda stats: stats.generated_tokens),
    (
        "peregrine_prefix_cache_evictions_total",
        "Cached blocks that gave way to others.",
        lambda stats: stats.evictions,
    ),
    ("peregrine_draft_tokens_total", "Draft tokens proposed by speculation.", lambda stats: stats.draft_tokens),
    ("peregrine_accepted_tokens_total", "Draft tokens accepted: steps saved.", lambda stats: stats.accepted_tokens),
    ("peregrine_step_tokens_total", "Tokens computed by steps, drafts aside.", lambda stats: stats.step_tokens),
    (
        "peregrine_step_budget_tokens_total",
        "Tokens that the budgets of these steps allowed.",
        lambda stats: stats.budget_tokens,
    ),
)
"""(name, help, reader) of each counter that shows the engine's statistics."""
DEPRECATED = {
    "peregrine_preemptions": "peregrine_preemptions_total",
    "peregrine_cached_tokens": "peregrine_cached_tokens_total",
    "peregrine_draft_tokens": "peregrine_draft_tokens_total",
    "peregrine_accepted_tokens": "peregrine_accepted_tokens_total",
    "peregrine_guessed_tokens": "peregrine_draft_tokens_total",
    "peregrine_guessed_right_tokens": "peregrine_accepted_tokens_total",
}
"""Old name of a counter, a gauge for one more release -> its name."""
MAX_TENANTS = 10
"""Tenants with series of their own: those with the most requests at a scrape. The others are one, `other`."""
TENANT_DIGITS = 8


class EngineMetrics(Collector):
    """Gauges and counters of the engine, build, model and their costs.

    Describes nothing: the registry holds a counter's name without `_total`, which a gauge bears, for taken.
    """

    def __init__(self, engine: EngineClient, info: ModelInfo, cost: ModelCost | None) -> None:
        self._engine = engine
        self._info = info
        self._cost = cost
        self._block_size = info.max_batch_total_tokens // max(engine.stats.kv_blocks_total, 1)

    def collect(self) -> Iterable[Metric]:
        """The series with the values of this moment."""
        stats = self._engine.stats
        yield from self._gauges(stats)
        values = {name: read(stats) for name, _, read in COUNTERS}
        for name, help, _ in COUNTERS:
            yield CounterMetricFamily(name, help, values[name])
        for old, name in DEPRECATED.items():
            help = f"Deprecated, removed in the next release: {name} replaces it."
            yield GaugeMetricFamily(old, help, values[name])
        yield tenant_gauge(stats)
        yield from self._about(stats)
        if self._cost is not None:
            yield from self._cost.collect(stats)

    def _gauges(self, stats: EngineStats) -> Iterable[Metric]:
        for name, help, read in GAUGES:
            yield GaugeMetricFamily(name, help, read(stats))
        yield GaugeMetricFamily(
            "tgi_batch_current_max_tokens",
            "Tokens for which the used blocks of the KV cache have room.",
            stats.kv_blocks_used * self._block_size,
        )
        yield GaugeMetricFamily(
            "tgi_batch_max_total_tokens", "Tokens the KV cache holds.", self._info.max_batch_total_tokens
        )
        yield GaugeMetricFamily("peregrine_healthy", "1 if a token can be made now.", self._engine.is_healthy)

    def _about(self, stats: EngineStats) -> Iterable[Metric]:
        info = self._info
        yield _constant("peregrine_build_info", "1; the version is a label.", version=version("peregrine"))
        yield _constant(
            "peregrine_model_info",
            "1; the model is in the labels.",
            model=info.model_id,
            revision=info.model_sha or "",
            dtype=info.model_dtype,
            device=info.model_device_type,
            shards=str(info.num_shard),
        )
        yield _constant(
            "peregrine_cache_config_info",
            "1; the size of the KV cache is in the labels, which endpoint pickers know by these names.",
            block_size=str(self._block_size),
            num_gpu_blocks=str(stats.kv_blocks_total),
        )


def tenant_gauge(stats: EngineStats) -> Metric:
    """Requests by tenant and state."""
    family = GaugeMetricFamily(
        "peregrine_tenant_requests",
        "Requests by API key, of which the label has the first digits of the SHA-256, and `other`; without keys, or "
        "with a single one, it is empty.",
        labels=("tenant", "state"),
    )
    states = {"waiting": stats.waiting_by_tenant, "running": stats.running_by_tenant}
    totals = {name: sum(counts.get(name, 0) for counts in states.values()) for name in set().union(*states.values())}
    shown = set(nlargest(MAX_TENANTS, totals, key=lambda name: (totals[name], name)))
    for state, counts in states.items():
        for label, count in _by_label(counts, shown).items():
            family.add_metric((label, state), count)
    return family


def _by_label(counts: Mapping[str, int], shown: set[str]) -> dict[str, int]:
    by_label = dict.fromkeys((*(name[:TENANT_DIGITS] for name in sorted(shown)), "other"), 0)
    for name, count in counts.items():
        by_label[name[:TENANT_DIGITS] if name in shown else "other"] += count
    return by_label


def _constant(name: str, help: str, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, help, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), 1)
    return family
