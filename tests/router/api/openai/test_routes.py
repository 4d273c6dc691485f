"""OpenAI's routes over real sockets: admission, counting, models, errors, /chat_tokenize."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fakes import EOS, FakeEngine, Server, serve, wait_until


@pytest.mark.slow
def test_permits_count_sequences(engine: FakeEngine) -> None:
    """Each sequence of each prompt takes a permit; a request beyond the limit is a 429 in OpenAI's shape."""
    engine.delay = 0.5
    with serve(engine, max_concurrent_requests=3) as server, ThreadPoolExecutor() as pool:
        running = pool.submit(server.client.post, "/v1/completions", json={"prompt": ["c", "d"], "max_tokens": 1})
        wait_until(lambda: len(engine.running) == 2)
        answer = server.client.post("/v1/completions", json={"prompt": "a", "n": 2})
        assert answer.status_code == 429
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) >= 1
        assert running.result().json()["choices"]
        body = {"prompt": ["a", "b", "c"], "max_tokens": 1}
        assert server.client.post("/v1/completions", json=body).json()["choices"]


def test_counted_once(server: Server) -> None:
    """A request with several prompts is counted once."""
    server.client.post("/v1/completions", json={"prompt": ["the", "fox"], "max_tokens": 3}).raise_for_status()
    metrics = server.metrics()
    assert metrics["tgi_request_count"] == metrics["tgi_request_success"] == 1
    assert metrics["tgi_request_generated_tokens_sum"] == 6


def test_models(server: Server) -> None:
    """GET /v1/models lists the served model, since when it is served, and its length."""
    (model,) = server.client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("peregrine/test", "model", 80)
    assert time.time() - 60 < model["created"] <= time.time()
    assert server.client.get("/v1/models").json()["data"] == [model]


@pytest.mark.parametrize("path", ["/v1/models/peregrine/test", "/v1/models/peregrine%2Ftest"])
def test_one_model(server: Server, path: str) -> None:
    """GET /v1/models/{id} is the list's entry, for an id with a slash, however a client writes it."""
    assert server.client.get(path).json() == server.client.get("/v1/models").json()["data"][0]


@pytest.mark.parametrize("id", ["test", "peregrine/tes", "peregrine/test/", "a" * 500])
def test_unknown_model(server: Server, id: str) -> None:
    """Any other id is a 404 with OpenAI's code, that says where to look."""
    answer = server.client.get(f"/v1/models/{id}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (404, "model_not_found", "invalid_request_error")
    assert error["message"].startswith(f"The model '{id[:128]}' does not exist")
    assert "GET /v1/models" in error["message"]


@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/models"])
def test_errors_of_routes(server: Server, path: str) -> None:
    """Unknown routes and wrong methods under /v1 are errors in OpenAI's shape too."""
    answer = server.client.post(path, json={})
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["message"]


def test_chat_tokenize(chatting: Server) -> None:
    """POST /chat_tokenize answers with the prompt and its tokens, the template's special ones among them."""
    messages = [{"role": "user", "content": f"é{EOS}"}]
    answer = chatting.client.post("/chat_tokenize", json={"messages": messages}).json()
    assert answer["templated_text"] == f"u:é{EOS}{EOS}a:"
    assert [token["text"] for token in answer["tokenize_response"] if token["id"] == 0] == [EOS]
    last = answer["tokenize_response"][-1]
    assert last["stop"] == len(answer["templated_text"].encode())
