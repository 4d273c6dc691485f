"""POST /generate and POST / over real sockets."""

import json
import threading
from importlib.metadata import version

import httpx
import pytest

from fakes import INFO, FakeEngine, Server, serve, wait_until
from peregrine_router.request import GenerationFailed


def test_text_alone_by_default(server: Server) -> None:
    """Without `details` the answer holds the generated text and nothing else, special tokens hidden."""
    answer = server.generate()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"generated_text": " falcons dive"}


def test_details(server: Server) -> None:
    """`details` shows every token, special ones marked, with TGI's fields and no empty optional ones."""
    details = server.generate(details=True).json()["details"]
    assert set(details) == {"finish_reason", "generated_tokens", "cached_tokens", "seed", "prefill", "tokens"}
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == len(details["tokens"])
    assert details["tokens"][-1] == {"id": 0, "text": "<|endoftext|>", "logprob": -0.5, "special": True}
    assert "".join(token["text"] for token in details["tokens"][:-1]) == " falcons dive"


def test_seed_is_null_when_greedy(server: Server) -> None:
    """Greedy details have no seed, sampled ones the given seed or the random one that was used."""
    assert server.generate(details=True).json()["details"]["seed"] is None
    assert server.generate(details=True, do_sample=True, seed=2**64 - 1).json()["details"]["seed"] == 2**64 - 1
    drawn = server.generate(details=True, do_sample=True).json()["details"]["seed"]
    assert drawn == server.engine.requests[-1].sampling.seed


def test_length_and_stop(server: Server) -> None:
    """A generation ends at `max_new_tokens`, or right after a stop sequence, which stays in the text."""
    assert server.generate(max_new_tokens=1, details=True).json()["details"]["finish_reason"] == "length"
    answer = server.generate(stop=["cons d"], details=True).json()
    assert answer["generated_text"] == " falcons d"
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_prefill(server: Server) -> None:
    """`decoder_input_details` shows the prompt's tokens, the first without log-probability, and implies details."""
    prefill = server.generate("the fox", decoder_input_details=True).json()["details"]["prefill"]
    assert "".join(token["text"] for token in prefill) == "the fox"
    assert [token["logprob"] for token in prefill] == [None] + [-1.0] * (len(prefill) - 1)
    assert set(prefill[0]) == {"id", "text", "logprob"}


def test_top_tokens(server: Server) -> None:
    """`top_n_tokens` answers with that many tokens for each generated one."""
    details = server.generate(top_n_tokens=3, details=True).json()["details"]
    assert [len(tokens) for tokens in details["top_tokens"]] == [3] * details["generated_tokens"]


def test_full_text(server: Server) -> None:
    """`return_full_text` puts the raw prompt first."""
    assert server.generate("the fox", return_full_text=True).json()["generated_text"] == "the fox falcons dive"


def test_headers(server: Server) -> None:
    """The answer's headers have sizes and times as TGI's do."""
    headers = server.generate("thé", max_new_tokens=2).headers
    assert headers["x-compute-type"] == "cpu+optimized"
    assert headers["x-compute-characters"] == "3"
    assert headers["x-generated-tokens"] == "2"
    assert int(headers["x-prompt-tokens"]) == len(server.engine.requests[-1].prompt_ids)
    times = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")
    assert all(int(headers[name]) >= 0 for name in times)
    assert 0 < float(headers["x-compute-time"]) < 5


def test_cached_tokens(server: Server) -> None:
    """The number of cached prompt tokens is in the details of answers and streams, and in a header."""
    server.engine.cached_tokens = 2
    answer = server.generate("the fox", details=True, best_of=2, do_sample=True)
    assert answer.json()["details"]["cached_tokens"] == 2
    assert answer.headers["x-cached-tokens"] == "2"
    stream = server.generate("the fox", path="/generate_stream", details=True).text
    assert json.loads(stream.splitlines()[-2].removeprefix("data:"))["details"]["cached_tokens"] == 2


def test_best_of(engine: FakeEngine) -> None:
    """The sequence of the highest mean log-probability wins; the other is in its details; seeds differ."""
    engine.logprobs = (-2.0, -1.0)
    with serve(engine) as server:
        details = server.generate(best_of=2, do_sample=True, details=True).json()["details"]
    (loser,) = details["best_of_sequences"]
    assert details["tokens"][0]["logprob"] == -1.0
    assert loser["tokens"][0]["logprob"] == -2.0
    assert loser["generated_text"] == " falcons dive"
    assert details["seed"] != loser["seed"]


def test_compat_answers_with_a_list(server: Server) -> None:
    """POST / answers with a list of one, the prompt included unless the client says otherwise."""
    assert server.generate("the", path="/").json() == [{"generated_text": "the falcons dive"}]
    assert server.generate("the", path="/", return_full_text=False).json() == [{"generated_text": " falcons dive"}]


def test_compat_streams(server: Server) -> None:
    """POST / with `stream` answers as POST /generate_stream does."""
    with server.client.stream("POST", "/", json={"inputs": "the", "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        last = [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")][-1]
    assert last["generated_text"] == "the falcons dive"


def test_generation_failure(engine: FakeEngine) -> None:
    """A request that the engine loses is answered 424 with the reason."""
    engine.error_at, engine.error = 2, GenerationFailed("shard 0 exited")
    with serve(engine) as server:
        answer = server.generate()
    assert answer.status_code == 424
    assert answer.json() == {
        "error": "Request failed during generation: shard 0 exited",
        "error_type": "generation",
    }


def test_incomplete_generation(engine: FakeEngine) -> None:
    """A generation that ends without its last event is an error, never a short answer."""
    engine.is_cut = True
    with serve(engine) as server:
        answer = server.generate()
    assert answer.status_code == 500
    assert answer.json() == {"error": "Incomplete generation", "error_type": "incomplete_generation"}


def test_client_that_leaves_is_cancelled(engine: FakeEngine) -> None:
    """Closing the connection while waiting for /generate cancels the request and frees its permit."""
    engine.delay = 0.4
    with serve(engine, max_concurrent_requests=1) as server:
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/generate", json={"inputs": "the"}, timeout=0.3)
        wait_until(lambda: server.metrics().get('tgi_request_failure{err="dropped"}'))
        assert not engine.running
        engine.delay = 0.0
        assert server.generate().status_code == 200
        assert server.metrics()['tgi_request_failure{err="dropped"}'] == 1


def test_overloaded(engine: FakeEngine) -> None:
    """A request over the limit is answered 429 at once, with `Retry-After`; best_of counts as many."""
    engine.delay = 0.4
    with serve(engine, max_concurrent_requests=2) as server:
        first = threading.Thread(target=server.generate)
        first.start()
        wait_until(lambda: engine.running)
        refused = server.generate(best_of=2, do_sample=True)
        engine.delay = 0.0
        assert server.generate().status_code == 200
        first.join()
        assert server.generate(best_of=2, do_sample=True).status_code == 200
    assert refused.status_code == 429
    assert refused.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
    assert int(refused.headers["retry-after"]) > 0


def test_info(server: Server) -> None:
    """GET /info returns the model and the limits that a client must keep."""
    info = server.client.get("/info").json()
    assert info["model_id"] == INFO.model_id
    assert info["max_total_tokens"] == INFO.max_total_tokens
    assert info["max_best_of"] == 2
    assert info["router"] == "peregrine"


def test_info_has_a_version_that_clients_of_tgi_parse(server: Server) -> None:
    """GET /info names the release of TGI whose routes these are, and ours beside it."""
    info = server.client.get("/info").json()
    assert info["version"].startswith("3.3.")
    assert info["peregrine_version"] == version("peregrine")
