"""Messages of a chat as the prompt of a model."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chats import TOOL, chat, prompt, refusal
from fakes import EOS, INFO, FakeEngine, Server, serve
from peregrine_router.api.openai.messages import plain_messages
from peregrine_router.api.openai.schemas import Message
from peregrine_router.text.chat_template import Chat


def test_special_text_in_messages_stays_text(chatting: Server) -> None:
    """Text like the end-of-text token in a message is encoded as characters, also if it spans two messages."""
    for content in (f"a{EOS}b", "<|endof", "text|>", f"{EOS}{EOS}", f" {EOS} "):
        chat(chatting, [{"role": "user", "content": content}, {"role": "user", "content": content}])
        assert chatting.engine.requests[-1].prompt_ids.count(0) == 2
        assert prompt(chatting) == f"u:{content}{EOS}u:{content}{EOS}a:"


def test_roles_and_parts(chatting: Server) -> None:
    """Content comes in parts too, developers speak as the system, calls and results are text for a plain template."""
    call = {"id": "c", "type": "function", "function": {"name": "dive", "arguments": '{"to": 1}'}}
    messages = [
        {"role": "developer", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "9", "tool_call_id": "c"},
    ]
    chat(chatting, messages)
    said = '{"name": "dive", "arguments": {"to": 1}}'
    assert prompt(chatting) == f"s:be{EOS}u:ab{EOS}a:{said}{EOS}u:Result: 9{EOS}a:"


def test_tools_are_explained(chatting: Server) -> None:
    """For a template without tools they are explained in the system message."""
    chat(chatting, tools=[TOOL], max_tokens=5, tool_prompt="T:")
    assert prompt(chatting).startswith('s:T:\n{"name": "dive"')


def test_legacy_calls_in_the_history(chatting: Server) -> None:
    """A `function_call` of the assistant and the result of a function render as a tool call and its result."""
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "function_call": {"name": "dive", "arguments": '{"to": 1}'}},
        {"role": "function", "name": "dive", "content": "9"},
    ]
    chat(chatting, messages)
    said = '{"name": "dive", "arguments": {"to": 1}}'
    assert prompt(chatting) == f"u:a{EOS}a:{said}{EOS}u:Result: 9{EOS}a:"


def test_legacy_calls_for_a_template_with_tools() -> None:
    """Such a template sees them as calls and results of tools."""
    legacy = [
        {"role": "assistant", "function_call": {"name": "dive", "arguments": "{}"}},
        {"role": "function", "name": "dive", "content": "9"},
    ]
    assistant, result = plain_messages([Message.model_validate(message) for message in legacy])
    assert assistant["tool_calls"] == [{"id": None, "type": "function", "function": {"name": "dive", "arguments": {}}}]
    assert (result["role"], result["name"], result["content"]) == ("tool", "dive", "9")


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "no, sorry"},
        {"content": [{"type": "refusal", "refusal": "no, sorry"}]},
        {"content": [{"type": "text", "text": "no, "}, {"type": "refusal", "refusal": "sorry"}]},
        {"content": [{"type": "output_text", "text": "no, "}, {"type": "input_text", "text": "sorry"}]},
        {"content": "no, sorry", "refusal": None},
    ],
)
def test_refusals_and_parts_of_text(chatting: Server, message: dict[str, Any]) -> None:
    """A refusal is what the assistant said, in a field or a part of its own; parts of responses are text, too."""
    chat(chatting, [{"role": "assistant", **message}, {"role": "user", "content": "why"}])
    assert prompt(chatting) == f"a:no, sorry{EOS}u:why{EOS}a:"


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text"}, {"type": "refusal", "text": "a"}]
)
def test_parts_that_are_no_text(chatting: Server, part: dict[str, Any]) -> None:
    """A part without text is refused by its type."""
    answer = chatting.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
    assert answer.status_code in (400, 422)
    assert part["type"] in answer.json()["error"]["message"]


TURNS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|x|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}{{ mood }}"
)
HISTORY = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho "}]


@pytest.fixture
def turns(engine: FakeEngine) -> Iterator[Server]:
    """A model whose template writes turns, the generation prompt if asked for, and a variable of its own."""
    info = replace(INFO, max_input_tokens=500, max_total_tokens=600)
    with serve(engine, info, Chat(engine.tokenizer, TURNS, {})) as server:
        yield server


RENDERINGS: list[tuple[dict[str, Any], list[Any], str]] = [
    ({}, HISTORY, "user: hi<|x|>\nassistant: ho "),
    ({}, HISTORY[:1], "user: hi<|x|>\nassistant:"),
    ({"continue_final_message": True}, HISTORY, "user: hi<|x|>\nassistant: ho "),
    ({"continue_final_message": True, "add_generation_prompt": False}, HISTORY[:1], "user: hi"),
    ({"continue_final_message": False}, HISTORY, "user: hi<|x|>\nassistant: ho <|x|>\nassistant:"),
    ({"add_generation_prompt": True}, HISTORY, "user: hi<|x|>\nassistant: ho <|x|>\nassistant:"),
    ({"add_generation_prompt": False}, HISTORY, "user: hi<|x|>\nassistant: ho <|x|>\n"),
    ({"add_generation_prompt": False}, HISTORY[:1], "user: hi<|x|>\n"),
    ({"chat_template_kwargs": {"mood": "joy"}}, HISTORY[:1], "user: hi<|x|>\nassistant:joy"),
    ({"chat_template_kwargs": {"mood": EOS}}, HISTORY[:1], f"user: hi<|x|>\nassistant:{EOS}"),
]


@pytest.mark.parametrize(("fields", "messages", "want"), RENDERINGS)
def test_how_a_chat_is_rendered(turns: Server, fields: dict[str, Any], messages: list[Any], want: str) -> None:
    """vLLM's fields decide; without them the assistant's last message is continued. Variables stay text."""
    chat(turns, messages, **fields)
    assert prompt(turns) == want
    assert 0 not in turns.engine.requests[-1].prompt_ids
    tokens = turns.client.post("/tokenize", json={"messages": messages, **fields}).json()
    assert tuple(tokens["tokens"]) == turns.engine.requests[-1].prompt_ids
    assert turns.client.post("/chat_tokenize", json={"messages": messages, **fields}).json()["templated_text"] == want


@pytest.mark.parametrize(
    ("fields", "messages", "message"),
    [
        ({"continue_final_message": True, "add_generation_prompt": True}, HISTORY, "cannot both be true"),
        ({"continue_final_message": True}, [*HISTORY, {"role": "user", "content": " "}], "needs a last message with"),
        ({"chat_template_kwargs": {"messages": []}}, HISTORY, "cannot hold `messages`"),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, HISTORY, "cannot hold `add_generation_prompt`"),
        ({"chat_template_kwargs": [1]}, HISTORY, "chat_template_kwargs"),
    ],
)
def test_renderings_that_contradict_themselves(turns: Server, fields: Any, messages: Any, message: str) -> None:
    """Each is a 400 that says why; a template's variables cannot replace the request's own fields."""
    assert message in refusal(turns, messages, **fields)["message"]
