"""The two formats of GET /metrics."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fakes import FakeEngine, Server, serve
from peregrine_router.observability.exposition import OPENMETRICS, TEXT, prefers_openmetrics
from peregrine_router.observability.observer import RequestObserver, RequestRecord

OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""The header that Prometheus 2.42 sends."""
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Tracer(RequestObserver):
    """Gives every request a trace."""

    def arrived(self, request: RequestRecord) -> None:
        request.trace_id = TRACE_ID


@pytest.mark.parametrize(
    ("accept", "is_preferred"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (OF_PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ("text/plain, application/openmetrics-text;q=0.1", False),
        ("text/plain;q=0.1, application/openmetrics-text; q=0.2", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=...", False),
        (";;,,q=", False),
    ],
)
def test_accept(accept: str, is_preferred: bool) -> None:
    """The format is the one that is asked for with the higher quality; plain text in doubt."""
    assert prefers_openmetrics(accept) == is_preferred


def test_both_formats_have_the_same_series(server: Server) -> None:
    """Strict parsers read both; names, labels and types are the same, but for what OpenMetrics forbids."""
    server.generate(max_new_tokens=3)
    plain = server.client.get("/metrics")
    other = server.client.get("/metrics", headers={"accept": OF_PROMETHEUS})
    assert plain.headers["content-type"].startswith(TEXT)
    assert other.headers["content-type"].startswith(OPENMETRICS)
    lines = [{line.rpartition(" ")[0] for line in each.text.splitlines() if line[0] != "#"} for each in (plain, other)]
    assert lines[0] == lines[1]
    kinds = {family.name: family.type for family in parse_text(plain.text)}
    for family in parse_openmetrics(other.text):
        if family.type != "unknown":
            assert family.type == kinds[family.name], family.name
        else:
            assert family.name.startswith("tgi_") or family.name.endswith("_total"), family.name


def test_first_tokens_name_their_traces(engine: FakeEngine) -> None:
    """With traces, OpenMetrics has the trace ids of requests as exemplars; plain text has none."""
    with serve(engine, observers=[Tracer()]) as server:
        server.generate(max_new_tokens=3)
        text = server.client.get("/metrics", headers={"accept": OF_PROMETHEUS}).text
        assert TRACE_ID not in server.client.get("/metrics").text
    named = {sample.name for family in parse_openmetrics(text) for sample in family.samples if sample.exemplar}
    assert named == {
        "gen_ai_server_request_duration_seconds_bucket",
        "gen_ai_server_time_per_output_token_seconds_bucket",
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "peregrine_time_to_first_token_seconds_bucket",
        "tgi_request_duration_bucket",
    }
