"""GET /metrics."""

from fakes import FakeEngine, Server, serve
from peregrine_router.generation import EngineStats


def test_a_request_counts_once(server: Server) -> None:
    """An answered request is counted, timed and measured once, streamed or not."""
    server.generate(max_new_tokens=3)
    server.generate(path="/generate_stream", max_new_tokens=3)
    metrics = server.metrics()
    assert metrics["tgi_request_count"] == 2
    assert metrics["tgi_request_success"] == 2
    for name in ("duration", "validation_duration", "queue_duration", "inference_duration"):
        assert metrics[f"tgi_request_{name}_count"] == 2
    assert metrics["tgi_request_generated_tokens_sum"] == 6
    assert metrics["tgi_request_max_new_tokens_sum"] == 6
    assert metrics["tgi_request_input_length_sum"] == 2 * len(server.engine.requests[0].prompt_ids)
    assert metrics["peregrine_time_to_first_token_seconds_count"] == 2
    assert metrics["peregrine_inter_token_latency_seconds_count"] == 4


def test_best_of_counts_once(server: Server) -> None:
    """A request of several sequences is one request."""
    server.generate(best_of=2, do_sample=True)
    metrics = server.metrics()
    assert metrics["tgi_request_count"] == metrics["tgi_request_success"] == 1
    assert metrics["peregrine_time_to_first_token_seconds_count"] == 1


def test_failures_have_labels(server: Server) -> None:
    """A refused request is counted once, as a failure of its kind."""
    server.generate(temperature=0)
    metrics = server.metrics()
    assert metrics["tgi_request_count"] == 1
    assert metrics['tgi_request_failure{err="validation"}'] == 1
    assert metrics["tgi_request_success"] == 0


def test_overload_has_its_label(engine: FakeEngine) -> None:
    """So is one for which there is no room."""
    with serve(engine, max_concurrent_requests=1) as server:
        server.generate(best_of=2, do_sample=True)
        assert server.metrics()['tgi_request_failure{err="overloaded"}'] == 1


def test_gauges_are_the_engines(server: Server) -> None:
    """Gauges show the engine at the moment of asking."""
    server.engine.stats = EngineStats(queue_size=3, batch_size=2, kv_blocks_used=5, kv_blocks_total=64, preemptions=1)
    metrics = server.metrics()
    assert metrics["tgi_queue_size"] == 3
    assert metrics["tgi_batch_current_size"] == 2
    assert metrics["tgi_batch_max_total_tokens"] == 4096
    assert metrics["peregrine_kv_blocks_used"] == 5
    assert metrics["peregrine_kv_blocks"] == 64
    assert metrics["peregrine_preemptions"] == 1
    assert metrics["peregrine_healthy"] == 1


def test_format(server: Server) -> None:
    """The text is Prometheus's, counters bear TGI's names and type, and nothing else is in it."""
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE tgi_request_count counter\ntgi_request_count 0.0\n" in answer.text
    assert "_total " not in answer.text
    assert "_created" not in answer.text


def test_apps_do_not_share_metrics(engine: FakeEngine) -> None:
    """Two apps in one process count apart."""
    with serve(engine) as first, serve(engine) as second:
        first.generate()
        assert second.metrics()["tgi_request_count"] == 0
