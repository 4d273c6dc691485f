"""SageMaker's POST /invocations and Vertex AI's POST /vertex."""

from collections.abc import Iterator
from typing import Any

import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer

MESSAGES = [{"role": "user", "content": "the"}]


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[Server]:
    with serve(FakeEngine(tokenizer), chat=Chat(tokenizer, "{{ messages[0].content }}", {})) as server:
        yield server


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"inputs": "the", "parameters": {}}, "/"),
        ({"messages": MESSAGES, "seed": 1}, "/v1/chat/completions"),
        ({"prompt": "the", "seed": 1}, "/v1/completions"),
        ({"inputs": "the", "parameters": {}, "messages": MESSAGES}, "/"),
    ],
)
def test_invocations(server: Server, body: dict[str, Any], path: str) -> None:
    """A body is answered as its own route answers it, streamed as well."""
    seen = [server.client.post(each, json=body).json() for each in ("/invocations", path)]
    for answer in seen:
        if isinstance(answer, dict):
            answer.pop("id")
            answer.pop("created")
    assert seen[0] == seen[1]
    streamed = server.client.post("/invocations", json={**body, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")


def test_vertex(server: Server) -> None:
    """Instances of both kinds are answered in order, by their text alone."""
    instances = [{"inputs": "the"}, {"messages": MESSAGES, "max_tokens": 3}, {"inputs": "fox", "parameters": {}}]
    answer = server.client.post("/vertex", json={"instances": instances})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0] == answer.json()["predictions"][2] == " falcons dive"
    assert " falcons dive".startswith(answer.json()["predictions"][1])


@pytest.mark.parametrize(
    "body", [{}, {"instances": []}, {"instances": [{}]}, {"instances": [{"inputs": ""}]}, {"other": 1}]
)
@pytest.mark.parametrize("path", ["/vertex", "/invocations"])
def test_refusals(server: Server, path: str, body: dict[str, Any]) -> None:
    """A body of no known form is a 422 in TGI's shape."""
    answer = server.client.post(path, json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "error_type"}


def test_too_many_instances(server: Server) -> None:
    """The limit on prompts per request applies to instances too."""
    answer = server.client.post("/vertex", json={"instances": [{"inputs": "the"}] * 5})
    assert answer.json()["error_type"] == "batch size exceeded"


GRAMMAR = {"type": "json", "value": {"properties": {"a": {"type": "array", "uniqueItems": True}}}}
INSTANCES: list[dict[str, Any]] = [
    {"inputs": "the", "parameters": {"grammar": GRAMMAR}},
    {"messages": MESSAGES, "response_format": GRAMMAR},
]


@pytest.mark.parametrize("instance", INSTANCES)
def test_what_is_not_enforced_is_said(server: Server, instance: dict[str, Any]) -> None:
    """The keywords of a schema that the grammar leaves out are in a header on both platforms, also of a stream."""
    for path, body in (
        ("/invocations", instance),
        ("/invocations", {**instance, "stream": True}),
        ("/vertex", {"instances": [{"inputs": "the"}, instance]}),
    ):
        answer = server.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert "uniqueItems" in answer.headers["x-peregrine-warning"]
    assert "x-peregrine-warning" not in server.client.post("/vertex", json={"instances": [{"inputs": "a"}]}).headers
