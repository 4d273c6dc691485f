"""Chats with a served engine without a model: a template, a tool, and the requests of the tests."""

import json
from typing import Any

from fakes import Server

TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] + ':' + message.content + eos_token }}{% endfor %}"
    "{% if messages[0].content == 'refuse' %}{{ raise_exception('no such thing') }}{% endif %}a:"
)
TOOL = {"type": "function", "function": {"name": "dive", "parameters": {"$defs": {"x": {}}, "$ref": "#/$defs/x"}}}
CALL = '{"name": "dive", "arguments": {"to": "{\\"}"}}'
USER = [{"role": "user", "content": "the fox"}]


def chat(server: Server, messages: Any = USER, **parameters: Any) -> dict[str, Any]:
    """The answer to a chat."""
    answer = server.client.post("/v1/chat/completions", json={"messages": messages, **parameters})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def chunks(server: Server, **parameters: Any) -> list[dict[str, Any]]:
    """The events of a stream, which must end with [DONE]."""
    body = {"messages": USER, "stream": True, **parameters}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def refusal(server: Server, messages: Any = USER, **parameters: Any) -> dict[str, Any]:
    """The error of a chat that is refused with a 400."""
    answer = server.client.post("/v1/chat/completions", json={"messages": messages, **parameters})
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def prompt(server: Server) -> str:
    """Text of the last prompt that the engine received, special tokens shown."""
    tokenizer = server.engine.tokenizer
    return "".join(tokenizer.describe(id).text for id in server.engine.requests[-1].prompt_ids)
