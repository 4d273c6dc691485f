"""The server metrics of OpenTelemetry's GenAI conventions, under the names that they have in Prometheus."""

from peregrine_router.observability.histogram import HistogramFamily
from peregrine_router.observability.observer import RequestObserver, RequestRecord

PROVIDER = "peregrine"
OPERATIONS = ("chat", "text_completion")
DURATION_SECONDS = tuple(0.01 * 2**power for power in range(14))
FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""Upper bounds of buckets, as the conventions give them."""


class GenAiMetrics(RequestObserver):
    """Observes the three histograms. Their labels: operation, provider, model; on the duration of a request that failed
    also `error_type`. The model is the one that is served, whatever name the client gave."""

    def __init__(self, model_id: str) -> None:
        labels = {"gen_ai_provider_name": PROVIDER, "gen_ai_request_model": model_id}
        self._duration = HistogramFamily(
            {"gen_ai_server_request_duration_seconds": "From a request's arrival to its end."},
            DURATION_SECONDS,
            **labels,
        )
        self._first_token = HistogramFamily(
            {"gen_ai_server_time_to_first_token_seconds": "From a request's arrival to its first token."},
            FIRST_TOKEN_SECONDS,
            **labels,
        )
        self._per_token = HistogramFamily(
            {"gen_ai_server_time_per_output_token_seconds": "Mean time of a token after a request's first."},
            TOKEN_SECONDS,
            **labels,
        )
        self.families = (self._duration, self._first_token, self._per_token)
        for family in self.families:
            for operation in OPERATIONS:  # a rate sees the first of what counts from zero
                family.child(gen_ai_operation_name=operation)

    def first_token(self, request: RequestRecord, now: float) -> None:
        histogram = self._first_token.child(gen_ai_operation_name=request.operation)
        histogram.observe(now - request.arrived_at, trace_id=request.trace_id)

    def answered(self, request: RequestRecord) -> None:
        assert request.ended_at is not None
        labels, trace_id = {"gen_ai_operation_name": request.operation}, request.trace_id
        self._duration.child(**labels).observe(request.ended_at - request.arrived_at, trace_id=trace_id)
        longest = max(each.generated_tokens for each in request.finished)
        if longest > 1 and request.first_token_at is not None:
            seconds = (request.ended_at - request.first_token_at) / (longest - 1)
            self._per_token.child(**labels).observe(seconds, trace_id=trace_id)

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        assert request.ended_at is not None
        histogram = self._duration.child(gen_ai_operation_name=request.operation, error_type=label)
        histogram.observe(request.ended_at - request.arrived_at, trace_id=request.trace_id)
