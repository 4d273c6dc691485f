"""How requests are counted and timed."""

from fakes import FakeEngine, Server, serve
from peregrine_router.request import Overloaded


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
    engine.submit_error = Overloaded()
    with serve(engine) as server:
        server.generate()
        assert server.metrics()['tgi_request_failure{err="overloaded"}'] == 1
