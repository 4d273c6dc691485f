"""Prometheus metrics. TGI's series under TGI's names, so that its dashboards work; `peregrine_` where TGI has none."""

import re
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from peregrine_router.interfaces import EngineClient, EngineStats, ModelInfo
from peregrine_router.observability.histogram import LabelledHistograms, TokenHistogram

DURATIONS = tuple(0.0001 * 1.5**power for power in range(1, 36))
"""Upper bounds of the buckets of durations, in seconds: TGI's, from 0.15 ms to two and a half minutes."""
NUM_LENGTH_BUCKETS = 100
"""Buckets of lengths in tokens, evenly up to the limit; as in TGI."""
METHODS = ("prefill", "decode")
GAUGES: tuple[tuple[str, str, Callable[[EngineStats], int]], ...] = (
    ("tgi_queue_size", "Requests waiting for their first step.", lambda stats: stats.queue_size),
    ("tgi_batch_current_size", "Requests being computed.", lambda stats: stats.batch_size),
    ("peregrine_kv_blocks_used", "Blocks of the KV cache in use.", lambda stats: stats.kv_blocks_used),
    ("peregrine_kv_blocks_cached", "Unused blocks kept for prefix cache hits.", lambda stats: stats.kv_blocks_cached),
    ("peregrine_kv_blocks", "Blocks of the KV cache.", lambda stats: stats.kv_blocks_total),
)
"""(name, help, reader) of each gauge that shows a field of the engine's statistics."""
COUNTERS: tuple[tuple[str, str, Callable[[EngineStats], int]], ...] = (
    ("peregrine_preemptions_total", "Preemptions for lack of free blocks.", lambda stats: stats.preemptions),
    ("peregrine_cached_tokens_total", "Prompt tokens found in the prefix cache.", lambda stats: stats.cached_tokens),
    ("peregrine_draft_tokens_total", "Draft tokens proposed by speculation.", lambda stats: stats.draft_tokens),
    ("peregrine_accepted_tokens_total", "Draft tokens accepted: steps saved.", lambda stats: stats.accepted_tokens),
)
"""(name, help, reader) of each counter that shows a field of the engine's statistics."""
DEPRECATED = {
    "peregrine_preemptions": "peregrine_preemptions_total",
    "peregrine_cached_tokens": "peregrine_cached_tokens_total",
    "peregrine_draft_tokens": "peregrine_draft_tokens_total",
    "peregrine_accepted_tokens": "peregrine_accepted_tokens_total",
    "peregrine_guessed_tokens": "peregrine_draft_tokens_total",
    "peregrine_guessed_right_tokens": "peregrine_accepted_tokens_total",
}
"""Old name of a counter, a gauge for one more release -> its name."""
# The client library insists on `_total` at the end of a counter's name, and adds a series with its time of creation,
# which it can leave out for the whole process only (disable_created_metrics), not for one registry.
_TOTAL_SUFFIX = re.compile(rb"\b(tgi_\w+)_total\b")
_CREATED_LINES = re.compile(rb"^(?:# (?:HELP|TYPE) )?\w+_created\b.*\n", re.MULTILINE)


class EngineCounters(Collector):
    """COUNTERS, and the gauges of the same values under their DEPRECATED names.

    Describes nothing: the registry holds a counter's name without `_total`, which a gauge bears, for taken.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        """The series with the values of this moment."""
        values = {name: read(self._engine.stats) for name, _, read in COUNTERS}
        for name, help, _ in COUNTERS:
            yield CounterMetricFamily(name, help, values[name])
        for old, name in DEPRECATED.items():
            help = f"Deprecated, removed in the next release: {name} replaces it."
            yield GaugeMetricFamily(old, help, values[name])


class Metrics:
    """All series of one app, in a registry of their own."""

    def __init__(self, info: ModelInfo) -> None:
        self._registry = CollectorRegistry()
        self._info = info
        self.request_count = self._counter("tgi_request_count", "Requests received.")
        self.request_success = self._counter("tgi_request_success", "Requests answered.")
        self.request_failure = Counter(
            "tgi_request_failure",
            "Requests that failed: overloaded, validation, template, generation, incomplete, timeout, cancelled; "
            "dropped if the client left.",
            ["err"],
            registry=self._registry,
        )
        self.request_duration = self._seconds("tgi_request_duration", "From the request's arrival to its end.")
        self.validation_duration = self._seconds("tgi_request_validation_duration", "From arrival to the queue.")
        self.queue_duration = self._seconds("tgi_request_queue_duration", "From the queue to the first step.")
        self.inference_duration = self._seconds("tgi_request_inference_duration", "From the first step to the end.")
        self.mean_time_per_token = self._seconds(
            "tgi_request_mean_time_per_token_duration", "Inference time divided by generated tokens."
        )
        self.input_length = self._tokens("tgi_request_input_length", "Prompt tokens.", info.max_input_tokens)
        self.generated_tokens = self._tokens("tgi_request_generated_tokens", "Generated tokens.", info.max_total_tokens)
        self.max_new_tokens = self._tokens(
            "tgi_request_max_new_tokens", "Tokens requested, max_new_tokens.", info.max_total_tokens
        )
        self.time_to_first_token = self._seconds(
            "peregrine_time_to_first_token_seconds", "From the request's arrival to its first token."
        )
        self.inter_token_latency = TokenHistogram(
            "peregrine_inter_token_latency_seconds", "From a token to the next of its sequence.", DURATIONS
        )
        self._registry.register(self.inter_token_latency)
        self.skipped_tokens = Summary(
            "tgi_request_skipped_tokens",
            "Draft tokens accepted of a sequence in a step that allowed drafts.",
            registry=self._registry,
        )
        self._add_batch_series()

    def render(self) -> bytes:
        """The exposition text, format 0.0.4."""
        return _CREATED_LINES.sub(b"", _TOTAL_SUFFIX.sub(rb"\1", generate_latest(self._registry)))

    def _add_batch_series(self) -> None:
        """TGI's series of batches, by method. Phases that TGI times and that do not exist here stay at zero."""
        self.batch_count = self._by_method("tgi_batch_inference_count", "Steps sent to the shards.")
        self.batch_success = self._by_method("tgi_batch_inference_success", "Steps answered.")
        self.batch_failure = self._by_method("tgi_batch_inference_failure", "Steps that failed.")
        # Finding a label takes as long as counting, and these count every step.
        self.steps_sent = {method: self.batch_count.labels(method) for method in METHODS}
        self.steps_answered = {method: self.batch_success.labels(method) for method in METHODS}
        names = {
            "tgi_batch_inference_duration": "A step's round trip.",
            "tgi_batch_forward_duration": "A step's round trip; the router cannot time the forward pass by itself.",
        }
        self.step_seconds = {method: TokenHistogram(method, "A step's time.", DURATIONS) for method in METHODS}
        self._registry.register(LabelledHistograms(names, "method", self.step_seconds))
        self._method_seconds("tgi_batch_decode_duration", "Always zero: text is decoded while the next step runs.")
        self._method_seconds("tgi_batch_filter_duration", "Always zero: sequences leave a batch within a step.")
        self._method_seconds("tgi_batch_concat_duration", "Always zero: sequences join within a step.", ("decode",))
        self.batch_concat = Counter(
            "tgi_batch_concat", "Steps in which new sequences joined running ones.", ["reason"], registry=self._registry
        )
        for reason in ("backpressure", "wait_exceeded", "chunking"):
            self.batch_concat.labels(reason)
        sizes = [float(size) for size in range(1, 1025)]
        self.batch_next_size = Histogram(
            "tgi_batch_next_size",
            "Sequences that are in a step for the first time.",
            registry=self._registry,
            buckets=sizes,
        )

    def watch(self, engine: EngineClient) -> None:
        """Adds the gauges, which read the engine whenever Prometheus scrapes the server."""

        def gauge(name: str, help: str, read: Callable[[EngineStats], float]) -> None:
            self._gauge(name, help).set_function(lambda: read(engine.stats))

        self._registry.register(EngineCounters(engine))
        capacity = self._info.max_batch_total_tokens
        block_size = capacity // max(engine.stats.kv_blocks_total, 1)
        for name, help, read in GAUGES:
            gauge(name, help, read)
        gauge(
            "tgi_batch_current_max_tokens",
            "Tokens for which the used blocks of the KV cache have room.",
            lambda stats: stats.kv_blocks_used * block_size,
        )
        self._gauge("tgi_batch_max_total_tokens", "Tokens the KV cache holds.").set(capacity)
        self._gauge("peregrine_healthy", "1 if a token can be made now.").set_function(lambda: engine.is_healthy)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(name, help, registry=self._registry)

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(name, help, registry=self._registry)

    def _by_method(self, name: str, help: str) -> Counter:
        series = Counter(name, help, ["method"], registry=self._registry)
        for method in METHODS:
            series.labels(method)
        return series

    def _method_seconds(self, name: str, help: str, methods: tuple[str, ...] = METHODS) -> Histogram:
        series = Histogram(name, help, ["method"], registry=self._registry, buckets=DURATIONS)
        for method in methods:
            series.labels(method)
        return series

    def _seconds(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, registry=self._registry, buckets=DURATIONS)

    def _tokens(self, name: str, help: str, largest: int) -> Histogram:
        width = max(largest / NUM_LENGTH_BUCKETS, 1)
        buckets = [width * number for number in range(1, NUM_LENGTH_BUCKETS + 1)]
        return Histogram(name, help, registry=self._registry, buckets=buckets)
