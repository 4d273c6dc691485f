"""The spans of requests, by a real server on an engine without a model."""

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from fakes import FakeEngine, serve, wait_until
from peregrine_router.request import GenerationFailed
from spans import Spans, attributes

PHASES = ["validation", "queue", "prefill", "decode"]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_a_request_is_a_server_span_with_its_phases(engine: FakeEngine, path: str) -> None:
    """Phases follow each other without a gap, inside the span; usage, reason and latencies are the answer's."""
    spans, engine.cached_tokens = Spans(), 2
    with serve(engine, tracer=spans.tracer) as server:
        answer = server.generate("the quick brown", path=path, max_new_tokens=3)
        wait_until(lambda: len(spans.all) == 5)
    root = spans.named(f"POST {path}")
    assert spans.names == [*PHASES, root.name]
    assert (root.kind, root.parent, root.status.status_code) == (SpanKind.SERVER, None, StatusCode.UNSET)
    phases = [spans.named(name) for name in PHASES]
    assert all(span.parent is not None and span.parent.span_id == root.context.span_id for span in phases)
    bounds = [time or 0 for span in phases for time in (span.start_time, span.end_time)]
    assert bounds[1:-1:2] == bounds[2:-1:2]
    whole = [root.start_time or 0, *bounds, root.end_time or 0]
    assert whole == sorted(whole)
    found = attributes(root)
    assert found["gen_ai.request.id"] == answer.headers["x-request-id"]
    assert found["gen_ai.usage.input_tokens"] == len(engine.requests[0].prompt_ids)
    assert (found["gen_ai.usage.output_tokens"], found["gen_ai.usage.cache_read.input_tokens"]) == (3, 2)
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    assert (found.get("gen_ai.request.stream"), found["http.response.status_code"]) == (
        (True, 200) if path == "/generate_stream" else (None, 200)
    )
    latency = found["gen_ai.latency.time_to_first_token"] + found["gen_ai.latency.time_in_model_decode"]
    assert latency == pytest.approx(found["gen_ai.latency.e2e"])


def test_metrics_refer_to_the_trace(engine: FakeEngine) -> None:
    """An exemplar of the latency histograms leads from a slow bucket to a trace that is in it."""
    spans = Spans()
    with serve(engine, tracer=spans.tracer) as server:
        server.generate("the quick brown", max_new_tokens=3)
        text = server.client.get("/metrics", headers={"accept": "application/openmetrics-text"}).text
    root = spans.named("POST /generate")
    assert f'# {{trace_id="{root.context.trace_id:032x}"}}' in text


def test_a_chat_is_named_so(engine: FakeEngine) -> None:
    """The operation follows from the route; several choices are counted, and their hits once."""
    spans, engine.cached_tokens = Spans(), 2
    body = {"messages": [{"role": "user", "content": "the"}], "n": 2, "max_tokens": 2, "seed": 7}
    with serve(engine, tracer=spans.tracer) as server:
        assert server.client.post("/v1/chat/completions", json=body).status_code == 400  # the model has no template
        server.client.post("/v1/completions", json={"prompt": "the", "n": 2, "max_tokens": 2, "seed": 7})
    assert attributes(spans.named("POST /v1/chat/completions"))["gen_ai.operation.name"] == "chat"
    found = attributes(spans.named("POST /v1/completions"))
    assert found["gen_ai.operation.name"] == "text_completion"
    assert (found["gen_ai.request.choice.count"], found["gen_ai.request.seed"]) == (2, 7)
    assert found["gen_ai.response.finish_reasons"] == ("length", "length")
    assert found["gen_ai.usage.cache_read.input_tokens"] == 2


def test_a_span_continues_the_clients_trace(engine: FakeEngine) -> None:
    """Its parent and state are those of `traceparent` and `tracestate`; the answer names the span."""
    spans, trace, parent = Spans(), "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "vendor=1"}
    with serve(engine, tracer=spans.tracer) as server:
        answer = server.client.post("/generate", json={"inputs": "the"}, headers=headers)
    root = spans.named("POST /generate")
    assert root.parent is not None
    assert f"{root.context.trace_id:032x} {root.parent.span_id:016x}" == f"{trace} {parent}"
    assert root.context.trace_state.get("vendor") == "1"
    assert answer.headers["traceresponse"] == f"00-{trace}-{root.context.span_id:016x}-01"


@pytest.mark.parametrize("given", ["", "00-0-0-01", "ff-" + "1" * 55, "-" * 10_000])
def test_a_bad_parent_is_no_parent(engine: FakeEngine, given: str) -> None:
    """A trace of its own, and an answer as ever."""
    spans = Spans()
    with serve(engine, tracer=spans.tracer) as server:
        answer = server.client.post("/generate", json={"inputs": "the"}, headers={"traceparent": given})
    assert answer.status_code == 200
    assert spans.named("POST /generate").parent is None


def test_what_is_not_sampled_is_not_recorded(engine: FakeEngine) -> None:
    """By our sampler or the client's flag: no span, but a header and an id for the log."""
    spans = Spans(ParentBased(ALWAYS_OFF))
    with serve(engine, tracer=spans.tracer) as server:
        assert int(server.generate().headers["traceresponse"][-2:], 16) & 1 == 0
        sampled = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
        server.client.post("/generate", json={"inputs": "the"}, headers=sampled)
    assert spans.names == [*PHASES, "POST /generate"]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_a_failure_is_on_the_span_and_on_the_phase(engine: FakeEngine, path: str) -> None:
    """The engine's loss of a request is an error of the server, whatever status the stream began with."""
    spans = Spans()
    engine.error_at, engine.error = 2, GenerationFailed("a secret reason")
    with serve(engine, tracer=spans.tracer) as server:
        server.generate(path=path)
        wait_until(lambda: len(spans.all) == 5)
    for span in (spans.named("decode"), spans.named(f"POST {path}")):
        assert attributes(span)["error.type"] == "generation"
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert "error.type" not in attributes(spans.named("prefill"))
    assert "secret" not in str([span.to_json() for span in spans.all])


def test_a_refusal_is_no_error_of_the_server(engine: FakeEngine) -> None:
    """It has the label of tgi_request_failure, or the status where no generation began; the span's status is unset."""
    spans = Spans()
    with serve(engine, tracer=spans.tracer) as server:
        server.generate(temperature=0)
        server.client.post("/nowhere")
    refused, unknown = spans.named("POST /generate"), spans.named("POST")
    assert (attributes(refused)["error.type"], attributes(unknown)["error.type"]) == ("validation", "404")
    assert refused.status.status_code == unknown.status.status_code == StatusCode.UNSET
    assert spans.names == ["validation", "POST /generate", "POST"]


def test_an_unexpected_exception_is_an_error(engine: FakeEngine) -> None:
    """A 500 and the exception's type, without its message."""
    spans, engine.submit_error = Spans(), RuntimeError("a secret")
    with serve(engine, tracer=spans.tracer) as server:
        assert server.generate().status_code == 500
    root = spans.named("POST /generate")
    assert (attributes(root)["error.type"], root.status.status_code) == ("RuntimeError", StatusCode.ERROR)
    assert "secret" not in root.to_json()


def test_a_cancelled_request_says_so(engine: FakeEngine) -> None:
    """So does one whose client left; neither is an error, and nothing of them is kept."""
    spans, engine.delay, engine.says = Spans(), 0.01, " falcons dive" * 100
    with serve(engine, tracer=spans.tracer) as server:
        with server.client.stream("POST", "/generate_stream", json={"inputs": "the"}) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert spans.tracer.live
            server.client.post(f"/cancel/{stream.headers['x-request-id']}")
            assert list(lines)
        with server.client.stream("POST", "/generate_stream", json={"inputs": "the"}) as stream:
            next(stream.iter_lines())
        wait_until(lambda: spans.names.count("POST /generate_stream") == 2)
    roots = [span for span in spans.all if span.name == "POST /generate_stream"]
    assert [attributes(span)["error.type"] for span in roots] == ["cancelled", "dropped"]
    assert {span.status.status_code for span in roots} == {StatusCode.UNSET}
    assert not spans.tracer.live


@pytest.mark.parametrize("has_content", [False, True])
def test_text_is_recorded_only_if_asked_for(engine: FakeEngine, has_content: bool) -> None:
    """By default no span has any of the prompt or the answer; with --otlp-content the span has both."""
    spans = Spans(has_content=has_content)
    with serve(engine, tracer=spans.tracer) as server:
        server.generate("secret fox", stop=["secret"])
        server.generate("secret fox", path="/generate_stream")
        server.generate("secret fox", temperature=0)
        wait_until(lambda: len([name for name in spans.names if name.startswith("POST")]) == 3)
    text = str([span.to_json() for span in spans.all])
    assert ("secret" in text, "falcons" in text) == (has_content, has_content)


def test_reads_have_no_span(engine: FakeEngine) -> None:
    """Health checks and scrapes would be most of all spans."""
    spans = Spans()
    with serve(engine, tracer=spans.tracer) as server:
        for path in ("/health", "/metrics", "/info"):
            assert "traceresponse" not in server.client.get(path).headers
    assert not spans.all
