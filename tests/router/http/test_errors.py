"""Answers to wrong HTTP requests: a real status, and always {"error", "error_type"}."""

import json

import httpx
import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.request import GenerationFailed, Overloaded
from peregrine_router.text.tokenizer import Tokenizer


def post(server: Server, content: str) -> httpx.Response:
    return server.client.post("/generate", content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "inputs"),
        ({"inputs": 3}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ([], "body"),
        ({"inputs": "a", "parameters": 3}, "parameters"),
        ({"inputs": "a", "parameters": {"temperature": "0.5"}}, "parameters.temperature"),
        ({"inputs": "a", "parameters": {"max_new_tokens": -1}}, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 1.5}}, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"max_new_tokens": True}}, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"seed": 2**64}}, "parameters.seed"),
        ({"inputs": "a", "parameters": {"do_sample": 1}}, "parameters.do_sample"),
        ({"inputs": "a", "parameters": {"stop": "x"}}, "parameters.stop"),
        ({"inputs": "a", "parameters": {"stop": ["x", 3]}}, "parameters.stop.1"),
    ],
)
def test_wrong_types(server: Server, body: object, where: str) -> None:
    """A value of the wrong type is answered 422 with one line that names it."""
    answer = post(server, json.dumps(body))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"Input validation error: `{where}`: ")
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("content", ["{", "", "[]", "{}", '{"prompt": 3}', '{"prompt": "a", "max_tokens": -1}'])
def test_invalid_input_is_a_400_under_v1(server: Server, content: str) -> None:
    """OpenAI's clients make their BadRequestError of it; the type says whose fault it is."""
    answer = server.client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["http_status_code"] == 400


def test_a_lost_request_is_a_500_under_v1(tokenizer: Tokenizer) -> None:
    """OpenAI's clients send it again, as they do after every 5xx; TGI's routes keep TGI's 424."""
    with serve(FakeEngine(tokenizer, submit_error=GenerationFailed("shard 0 exited"))) as server:
        answer = server.client.post("/v1/completions", json={"prompt": "a"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert server.generate().status_code == 424


def test_overload_names_the_flag_under_v1(tokenizer: Tokenizer) -> None:
    """TGI's routes keep TGI's words."""
    with serve(FakeEngine(tokenizer, submit_error=Overloaded("4 requests may wait; see --max-queue-size"))) as server:
        openai = server.client.post("/v1/completions", json={"prompt": "a"}).json()
        assert openai["error"]["code"] == "rate_limit_exceeded"
        assert openai["error"]["message"] == "Model is overloaded: 4 requests may wait; see --max-queue-size"
        assert server.generate().json()["error"] == "Model is overloaded"


def test_infinity_is_refused(server: Server) -> None:
    """A number too large for a float is answered 422."""
    answer = post(server, '{"inputs": "a", "parameters": {"temperature": 1e999}}')
    assert answer.status_code == 422
    assert "finite" in answer.json()["error"]


def test_unknown_names_are_ignored(server: Server) -> None:
    """Unknown names, and null for any known one, are accepted as TGI does."""
    body = {"inputs": "a", "model": "x", "parameters": {"new_in_2030": [1], "top_k": None, "stop": None}}
    assert post(server, json.dumps(body)).status_code == 200
    assert post(server, json.dumps({"inputs": "a", "parameters": None})).status_code == 200


def test_unknown_route(server: Server) -> None:
    """An unknown path is answered 404."""
    answer = server.client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json()["error_type"] == "not_found"


def test_wrong_method(server: Server) -> None:
    """A known path with a wrong method is answered 405 with the right one."""
    answer = server.client.get("/generate")
    assert answer.status_code == 405
    assert answer.json() == {"error": "/generate does not take GET, but POST", "error_type": "method_not_allowed"}
    assert answer.headers["allow"] == "OPTIONS, POST"


def test_unexpected_exception(tokenizer: Tokenizer) -> None:
    """A fault of the server itself is answered 500 without its message."""
    engine = FakeEngine(tokenizer, submit_error=ZeroDivisionError("secret"))
    with serve(engine) as server:
        answer = server.generate()
    assert answer.status_code == 500
    assert answer.json()["error_type"] == "internal"
    assert "secret" not in answer.text
