"""Structured output of the demo model in a real server: answers end, and no broken JSON claims to be whole."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from serving import ServerProcess

pytestmark = pytest.mark.slow

USER = [{"role": "user", "content": "Is the sea deep? Answer in JSON."}]
OK = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
DEAD_END = {
    "type": "object",
    "properties": {"ab": {"const": 1}},
    "patternProperties": {"^ab$": {"const": 1}},
    "minProperties": 2,
    "required": ["ab"],
}


@pytest.fixture(scope="module")
def demo() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


def answer(demo: ServerProcess, schema: dict[str, Any], **more: Any) -> Any:
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": USER, "max_tokens": 60, "seed": 1, "response_format": given, **more}
    return demo.client.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("schema", [OK, {"properties": OK["properties"], "required": ["ok"]}])
def test_an_answer_has_the_listed_properties_and_ends(demo: ServerProcess, schema: dict[str, Any]) -> None:
    """As pydantic writes it, and without `type`."""
    for seed in range(5):
        choice = answer(demo, schema, seed=seed, temperature=1.5).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert json.loads(choice["message"]["content"]).keys() == {"ok"}


def test_a_tool_without_parameters_is_called_with_none(demo: ServerProcess) -> None:
    """The arguments are {}."""
    tool = {"type": "function", "function": {"name": "dive"}}
    body = {"messages": USER, "max_tokens": 60, "seed": 1, "tools": [tool], "tool_choice": "required"}
    choice = demo.client.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {}


@pytest.mark.parametrize("style", [{"model": "tgi"}, {"tool_choice": "required"}])
def test_answers_with_tools_are_calls_or_text(demo: ServerProcess, style: dict[str, Any]) -> None:
    """TGI's `auto` gives a call or text, `required` one call or more; arguments fit, and no JSON is content."""
    tools = [{"type": "function", "function": {"name": name, "parameters": OK}} for name in ("dive", "climb")]
    for seed in range(8):
        body = {"messages": USER, "max_tokens": 200, "seed": seed, "temperature": 1.2, "tools": tools, **style}
        choice = demo.client.post("/v1/chat/completions", json=body).json()["choices"][0]
        calls = choice["message"].get("tool_calls", [])
        assert choice["finish_reason"] == ("tool_calls" if calls else "stop") or choice["finish_reason"] == "length"
        assert calls or (style == {"model": "tgi"} and "arguments" not in choice["message"]["content"])
        for call in calls[: -1 if choice["finish_reason"] == "length" else None]:
            assert json.loads(call["function"]["arguments"]).keys() == {"ok"}


def test_a_dead_end_is_an_error_of_its_request(demo: ServerProcess) -> None:
    """The second property has no name left. A stream ends with an error, and the server goes on."""
    refused = answer(demo, DEAD_END)
    assert refused.status_code >= 400
    assert "the grammar cannot be followed" in refused.json()["error"]["message"]
    events = answer(demo, DEAD_END, stream=True).text
    assert "the grammar cannot be followed" in events
    assert '"finish_reason":"stop"' not in events.replace(" ", "")
    assert answer(demo, OK).status_code == 200
