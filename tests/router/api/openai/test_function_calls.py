"""Chats with `functions`, the older form of `tools`."""

from typing import Any

import pytest

from chats import chat, chunks, prompt
from fakes import Server

FUNCTION = {"name": "dive", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}
ARGUMENTS = '{"to": "{\\"}"}'


def test_an_answer_has_a_function_call(caller: Server) -> None:
    """A client that sends `functions` finds the call where it looks: in `function_call`, with that reason."""
    choice = chat(caller, functions=[FUNCTION])["choices"][0]
    call = {"name": "dive", "arguments": ARGUMENTS}
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": call,
    }
    assert choice["finish_reason"] == "function_call"
    assert '"dive"' in prompt(caller)


def test_a_stream_has_a_function_call(caller: Server) -> None:
    """In a stream the first part has the name, all together the arguments, and no event has a tool call."""
    choices = [event["choices"][0] for event in chunks(caller, functions=[FUNCTION])]
    assert not any("tool_calls" in choice["delta"] for choice in choices)
    parts = [choice["delta"]["function_call"] for choice in choices if "function_call" in choice["delta"]]
    assert [part.get("name") for part in parts] == ["dive"] + [None] * (len(parts) - 1)
    assert "".join(part["arguments"] for part in parts) == ARGUMENTS
    assert choices[-1]["finish_reason"] == "function_call"


@pytest.mark.parametrize("parameters", [{}, {"function_call": "none"}, {"function_call": "auto"}])
def test_text_stays_text(chatting: Server, parameters: dict[str, Any]) -> None:
    """An answer without a call is the same in both forms."""
    choice = chat(chatting, functions=[FUNCTION], **parameters)["choices"][0]
    assert choice["message"]["content"] == " falcons dive"
    assert "function_call" not in choice["message"]
    assert choice["finish_reason"] == "stop"


def test_a_named_function_is_required(caller: Server) -> None:
    """`function_call` with a name constrains the output to that function's schema."""
    chat(caller, functions=[FUNCTION, {**FUNCTION, "name": "b"}], function_call={"name": "dive"}, max_tokens=40)
    grammar = caller.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert '"dive"' in grammar.source
    assert '"b"' not in grammar.source
