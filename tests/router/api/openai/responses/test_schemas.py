"""Requests for responses that are refused, and how they are told."""

from typing import Any

import pytest

from fakes import Server
from responding import DIVE, refusal, respond

HOSTED = ("web_search", "file_search", "code_interpreter", "mcp", "computer_use_preview", "custom", "image_generation")


@pytest.mark.parametrize("type", HOSTED)
def test_hosted_tools_are_refused(chatting: Server, type: str) -> None:
    """A tool that OpenAI runs is a 400 that names its type and says what to do."""
    error = refusal(chatting, tools=[DIVE, {"type": type, "name": "x"}])
    assert error["param"] == "tools"
    assert f"`tools.1`: tools of the type {type} are not supported; declare a `function`" in error["message"]
    assert f"a choice of the type {type} is not supported" in refusal(chatting, tool_choice={"type": type})["message"]


@pytest.mark.parametrize(
    ("given", "param", "instead"),
    [
        ({"background": True}, "background", "`stream`"),
        ({"conversation": "conv_1"}, "conversation", "`previous_response_id`"),
        ({"conversation": {"id": "conv_1"}}, "conversation", "`previous_response_id`"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "`instructions`"),
    ],
)
def test_what_is_kept_or_run_at_openai_is_refused(
    chatting: Server, given: dict[str, Any], param: str, instead: str
) -> None:
    """It is a 400 that says what to do instead."""
    error = refusal(chatting, **given)
    assert error["param"] == param
    assert "not supported" in error["message"]
    assert instead in error["message"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 700}, "input"),
        ({"temperature": -1.0}, "temperature"),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"truncation": "always"}, "truncation"),
        ({"tool_choice": "swim"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [DIVE] * 65}, "tools"),
        ({"text": {"format": {"type": "yaml"}}}, "text"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": "a\0"}, "input"),
    ],
)
def test_wrong_values(chatting: Server, given: dict[str, Any], param: str) -> None:
    """Each is a 400 with the parameter's name of this route, streamed or not."""
    for is_stream in (False, True):
        assert refusal(chatting, **{"input": "a", **given}, stream=is_stream)["param"] == param
    assert not chatting.engine.running


def test_a_conversation_that_is_too_long(chatting: Server) -> None:
    """It has the code and the words by which frameworks know it."""
    error = refusal(chatting, "x" * 700)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert "maximum context length" in error["message"]


@pytest.mark.parametrize(
    "given",
    [
        {"reasoning": {"effort": "low"}},
        {"service_tier": "auto"},
        {"stream_options": {"include_obfuscation": False}},
        {"include": ["reasoning.encrypted_content"]},
        {"background": False},
        {"max_tool_calls": 3},
        {"tools": [], "metadata": None, "instructions": None, "previous_response_id": None},
    ],
)
def test_what_changes_nothing_is_accepted(chatting: Server, given: dict[str, Any]) -> None:
    """Parameters of models and of a service that this is not are ignored where that is harmless."""
    assert respond(chatting, **given).status == "completed"
