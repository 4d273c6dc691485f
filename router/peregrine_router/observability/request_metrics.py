"""The metrics of requests: counts, durations of the phases, lengths, latency between tokens."""

from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.observer import RequestObserver, RequestRecord


class RequestMetrics(RequestObserver):
    """Updates the series of requests. Durations and lengths are observed of answered requests only, as in TGI;
    the time to the first token and the latency between tokens, of every token that is sent."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._observe_latency = metrics.inter_token_latency.observe

    def arrived(self, request: RequestRecord) -> None:
        self._metrics.request_count.inc()

    def first_token(self, request: RequestRecord, now: float) -> None:
        self._metrics.time_to_first_token.observe(now - request.arrived_at, trace_id=request.trace_id)

    def tokens(self, request: RequestRecord, count: int, seconds: float | None) -> None:
        # Of several tokens read at once, all but the first come no time after the one before.
        if seconds is not None:
            self._observe_latency(seconds)
        if count > 1:
            self._observe_latency(0.0, count - 1)

    def answered(self, request: RequestRecord) -> None:
        assert request.ended_at is not None
        metrics, timings = self._metrics, request.timings(request.ended_at)
        longest = max(each.generated_tokens for each in request.finished)
        metrics.request_success.inc()
        metrics.request_duration.observe(timings.total, trace_id=request.trace_id)
        metrics.validation_duration.observe(timings.validation)
        metrics.queue_duration.observe(timings.queue)
        metrics.inference_duration.observe(timings.inference)
        metrics.mean_time_per_token.observe(timings.inference / max(longest, 1))
        metrics.input_length.observe(request.num_prompt_tokens)
        metrics.generated_tokens.observe(request.num_generated_tokens)
        metrics.max_new_tokens.observe(request.requests[0].max_new_tokens)

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        self._metrics.request_failure.labels(label).inc()
