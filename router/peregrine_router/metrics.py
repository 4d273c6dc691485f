"""Prometheus metrics. TGI's series under TGI's names, so that its dashboards work; `peregrine_` where TGI has none."""

import re
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from peregrine_router.generation import Engine, EngineStats, ModelInfo

DURATIONS = tuple(0.0001 * 1.5**power for power in range(1, 36))
"""Seconds: TGI's buckets, from 0.15 ms to two and a half minutes."""
NUM_LENGTH_BUCKETS = 100
# The client library insists on `_total` at the end of a counter's name, and adds a series with its time of creation.
_TOTAL_SUFFIX = re.compile(rb"\b((?:tgi|peregrine)_\w+)_total\b")
_CREATED_LINES = re.compile(rb"^(?:# (?:HELP|TYPE) )?\w+_created\b.*\n", re.MULTILINE)


class Metrics:
    """Everything measured by one app, in a registry of its own."""

    def __init__(self, engine: Engine, info: ModelInfo) -> None:
        self._registry = CollectorRegistry()
        self.request_count = self._counter("tgi_request_count", "Requests received.")
        self.request_success = self._counter("tgi_request_success", "Requests answered.")
        self.request_failure = Counter(
            "tgi_request_failure",
            "Requests that failed: overloaded, validation, generation, incomplete; dropped if the client left.",
            ["err"],
            registry=self._registry,
        )
        self.request_duration = self._seconds("tgi_request_duration", "From the request's arrival to its end.")
        self.validation_duration = self._seconds("tgi_request_validation_duration", "From arrival to the queue.")
        self.queue_duration = self._seconds("tgi_request_queue_duration", "From the queue to the first step.")
        self.inference_duration = self._seconds("tgi_request_inference_duration", "From the first step to the end.")
        self.mean_time_per_token = self._seconds(
            "tgi_request_mean_time_per_token_duration", "Time of inference by generated tokens."
        )
        self.input_length = self._tokens("tgi_request_input_length", "Prompt tokens.", info.max_input_tokens)
        self.generated_tokens = self._tokens("tgi_request_generated_tokens", "Generated tokens.", info.max_total_tokens)
        self.max_new_tokens = self._tokens("tgi_request_max_new_tokens", "Tokens asked for.", info.max_total_tokens)
        self.time_to_first_token = self._seconds(
            "peregrine_time_to_first_token_seconds", "From the request's arrival to its first token."
        )
        self.inter_token_latency = self._seconds(
            "peregrine_inter_token_latency_seconds", "Between a token and the one before it."
        )
        self._watch(engine, info)

    def render(self) -> bytes:
        """The text that Prometheus reads, format 0.0.4."""
        return _CREATED_LINES.sub(b"", _TOTAL_SUFFIX.sub(rb"\1", generate_latest(self._registry)))

    def _watch(self, engine: Engine, info: ModelInfo) -> None:
        """Gauges that ask the engine whenever Prometheus asks the server."""

        def watch(name: str, help: str, read: Callable[[EngineStats], int]) -> None:
            Gauge(name, help, registry=self._registry).set_function(lambda: read(engine.stats))

        watch("tgi_queue_size", "Requests that wait for their first step.", lambda stats: stats.queue_size)
        watch("tgi_batch_current_size", "Requests that are being computed.", lambda stats: stats.batch_size)
        watch("peregrine_kv_blocks_used", "Blocks of the KV cache in use.", lambda stats: stats.kv_blocks_used)
        watch("peregrine_kv_blocks", "Blocks of the KV cache.", lambda stats: stats.kv_blocks_total)
        watch("peregrine_preemptions", "Requests set back for want of blocks.", lambda stats: stats.preemptions)
        healthy = Gauge("peregrine_healthy", "1 if a token can be made now.", registry=self._registry)
        healthy.set_function(lambda: engine.is_healthy)
        Gauge("tgi_batch_max_total_tokens", "Tokens the KV cache holds.", registry=self._registry).set(
            info.max_batch_total_tokens
        )

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(name, help, registry=self._registry)

    def _seconds(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, registry=self._registry, buckets=DURATIONS)

    def _tokens(self, name: str, help: str, largest: int) -> Histogram:
        width = max(largest / NUM_LENGTH_BUCKETS, 1)
        buckets = [width * number for number in range(1, NUM_LENGTH_BUCKETS + 1)]
        return Histogram(name, help, registry=self._registry, buckets=buckets)
