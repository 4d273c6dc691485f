"""Prometheus metrics. TGI's series under TGI's names, so that its dashboards work; `peregrine_` where TGI has none, and
the GenAI conventions' own."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, Summary
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from peregrine_router.interfaces import EngineClient, ModelInfo
from peregrine_router.observability.engine_metrics import EngineMetrics
from peregrine_router.observability.exposition import registry_text
from peregrine_router.observability.genai_metrics import GenAiMetrics
from peregrine_router.observability.histogram import Histogram, HistogramFamily
from peregrine_router.observability.model_cost import ModelCost

DURATIONS = tuple(0.0001 * 1.5**power for power in range(1, 36))
"""Upper bounds of the buckets of durations, in seconds: TGI's, from 0.15 ms to two and a half minutes."""
NUM_LENGTH_BUCKETS = 100
"""Buckets of lengths in tokens, evenly up to the limit; as in TGI."""
METHODS = ("prefill", "decode")
PHASES = ("schedule", "wait", "deliver")
"""Parts of the router's work on a step, as `StepObserver.spent` names them."""
FAILURES = (
    "overloaded",
    "validation",
    "template",
    "generation",
    "incomplete",
    "timeout",
    "cancelled",
    "dropped",
    "stopping",
    "internal",
)
"""Values of `err`: those of TGI, and `timeout`, `cancelled`, `stopping` if the server ended first, and `internal`."""


class LogCounter(Collector):
    """The counter of log lines that nobody read."""

    def __init__(self, num_dropped: Callable[[], int]) -> None:
        self._num_dropped = num_dropped

    def collect(self) -> Iterable[Metric]:
        """The series with the value of this moment."""
        help = "Lines of the log that were dropped because standard error was not read in time."
        yield CounterMetricFamily("peregrine_log_lines_dropped_total", help, self._num_dropped())


class Metrics:
    """All series of one app, in a registry of their own; histograms, which are most of the text, beside it."""

    def __init__(self, info: ModelInfo, cost: ModelCost | None = None) -> None:
        """`cost`: what the model's steps take, if that is known."""
        self._registry = CollectorRegistry()
        self._families: list[HistogramFamily] = []
        self._info = info
        self._cost = cost
        self.genai = GenAiMetrics(info.model_id)
        self._families += self.genai.families
        self._add_request_series()
        self._add_lengths()
        self._add_batch_series()
        ProcessCollector(registry=self._registry)

    def render(self, *, is_openmetrics: bool = False) -> bytes:
        """The exposition text: format 0.0.4, or OpenMetrics 1.0.0."""
        parts = list(registry_text(self._registry, is_openmetrics=is_openmetrics))
        for family in self._families:
            parts += family.text(is_openmetrics=is_openmetrics)
        return "".join([*parts, "# EOF\n"] if is_openmetrics else parts).encode()

    def watch(self, engine: EngineClient) -> None:
        """Adds the series that read the engine whenever Prometheus scrapes the server."""
        self._registry.register(EngineMetrics(engine, self._info, self._cost))

    def watch_log(self, num_dropped: Callable[[], int]) -> None:
        """Adds the counter of dropped log lines."""
        self._registry.register(LogCounter(num_dropped))

    def _add_request_series(self) -> None:
        """The series of requests, and of their phases."""
        self.request_count = self._counter("tgi_request_count", "Requests received.")
        self.request_success = self._counter("tgi_request_success", "Requests answered.")
        help = f"Requests that failed: {', '.join(FAILURES)}."
        self.request_failure = Counter("tgi_request_failure", help, ["err"], registry=self._registry)
        for label in FAILURES:
            self.request_failure.labels(label)
        self.request_duration = self._seconds("tgi_request_duration", "From the request's arrival to its end.")
        self.validation_duration = self._seconds("tgi_request_validation_duration", "From arrival to the queue.")
        self.queue_duration = self._seconds("tgi_request_queue_duration", "From the queue to the first step.")
        self.inference_duration = self._seconds("tgi_request_inference_duration", "From the first step to the end.")
        self.mean_time_per_token = self._seconds(
            "tgi_request_mean_time_per_token_duration", "Inference time divided by generated tokens."
        )
        self.time_to_first_token = self._seconds(
            "peregrine_time_to_first_token_seconds", "From the request's arrival to its first token."
        )
        self.inter_token_latency = self._seconds(
            "peregrine_inter_token_latency_seconds", "From a token to the next of its sequence."
        )

    def _add_lengths(self) -> None:
        """The series of requests in tokens."""
        most_input, most = self._info.max_input_tokens, self._info.max_total_tokens
        self.input_length = self._tokens("tgi_request_input_length", "Prompt tokens.", most_input)
        self.generated_tokens = self._tokens("tgi_request_generated_tokens", "Generated tokens.", most)
        self.max_new_tokens = self._tokens("tgi_request_max_new_tokens", "Tokens requested, max_new_tokens.", most)
        self.skipped_tokens = Summary(
            "tgi_request_skipped_tokens",
            "Draft tokens accepted of a sequence in a step that allowed drafts.",
            registry=self._registry,
        )

    def _add_batch_series(self) -> None:
        """TGI's series of batches, by method. Phases that TGI times and that do not exist here stay at zero."""
        # Finding a label takes as long as counting, and these count every step.
        self.steps_sent = self._by_method("tgi_batch_inference_count", "Steps sent to the shards.")
        self.steps_answered = self._by_method("tgi_batch_inference_success", "Steps answered.")
        self.steps_failed = self._by_method("tgi_batch_inference_failure", "Steps that failed.")
        round_trip = {
            "tgi_batch_inference_duration": "A step's round trip.",
            "tgi_batch_forward_duration": "A step's round trip; the router cannot time the forward pass by itself.",
        }
        self.step_seconds = self._labelled(round_trip, "method", METHODS)
        zero = {
            "tgi_batch_decode_duration": "Always zero: text is decoded while the next step runs.",
            "tgi_batch_filter_duration": "Always zero: sequences leave a batch within a step.",
        }
        self._labelled(zero, "method", METHODS)
        concat = {"tgi_batch_concat_duration": "Always zero: sequences join within a step."}
        self._labelled(concat, "method", ("decode",))
        phase = {"peregrine_step_phase_seconds": "The router's part of a step: scheduling, waiting, delivering."}
        self.phase_seconds = self._labelled(phase, "phase", PHASES)
        self.batch_concat = Counter(
            "tgi_batch_concat", "Steps in which new sequences joined running ones.", ["reason"], registry=self._registry
        )
        for reason in ("backpressure", "wait_exceeded", "chunking"):
            self.batch_concat.labels(reason)
        self.batch_next_size = self._histogram(
            "tgi_batch_next_size", "Sequences that are in a step for the first time.", [*map(float, range(1, 1025))]
        )

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(name, help, registry=self._registry)

    def _by_method(self, name: str, help: str) -> Mapping[str, Counter]:
        series = Counter(name, help, ["method"], registry=self._registry)
        return {method: series.labels(method) for method in METHODS}

    def _labelled(self, names: Mapping[str, str], label: str, values: tuple[str, ...]) -> Mapping[str, Histogram]:
        family = HistogramFamily(names, DURATIONS)
        self._families.append(family)
        return {value: family.child(**{label: value}) for value in values}

    def _seconds(self, name: str, help: str) -> Histogram:
        return self._histogram(name, help, DURATIONS)

    def _tokens(self, name: str, help: str, largest: int) -> Histogram:
        width = max(largest / NUM_LENGTH_BUCKETS, 1)
        return self._histogram(name, help, [width * number for number in range(1, NUM_LENGTH_BUCKETS + 1)])

    def _histogram(self, name: str, help: str, bounds: Iterable[float]) -> Histogram:
        family = HistogramFamily({name: help}, tuple(bounds))
        self._families.append(family)
        return family.child()
