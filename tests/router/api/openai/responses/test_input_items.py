"""Items of `input`: what is accepted, and in which form it is kept."""

from typing import Any

import pytest

from chats import prompt
from fakes import EOS, Server
from peregrine_router.api.openai.responses.input_items import InputItem, stored_form
from responding import refusal, respond


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "user", "status": "completed", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "h"}, {"type": "text", "text": "i"}]},
    ],
)
def test_messages(chatting: Server, item: dict[str, Any]) -> None:
    """A message comes with or without its type, its content as text or in parts."""
    respond(chatting, [item])
    assert prompt(chatting) == f"u:hi{EOS}a:"


def test_what_the_assistant_said(chatting: Server) -> None:
    """Texts and refusals of the assistant are read as they were answered."""
    parts = [{"type": "output_text", "text": "no", "annotations": []}, {"type": "refusal", "refusal": "!"}]
    said = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": parts}
    respond(chatting, [{"role": "user", "content": "hi"}, said, {"role": "user", "content": "why"}])
    assert prompt(chatting) == f"u:hi{EOS}a:no!{EOS}u:why{EOS}a:"


def test_calls_and_outputs(chatting: Server) -> None:
    """A call and its output, as text or in parts, are of the conversation; reasoning is passed over."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}', "id": "fc_1"}
    for output in ("9", [{"type": "input_text", "text": "9"}]):
        given = [
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            call,
            {"type": "function_call_output", "call_id": "c", "output": output},
        ]
        respond(chatting, given)
        assert prompt(chatting) == f'u:hi{EOS}a:{{"name": "f", "arguments": {{"a": 1}}}}{EOS}u:Result: 9{EOS}a:'


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "text only, not input_image"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}, "text only, not input_file"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "needs its text"),
        ({"role": "user"}, "an item of the type message needs `content`"),
        ({"content": "a"}, "needs `role`"),
        ({"role": "tool", "content": "a"}, "role"),
        ({"type": "function_call", "name": "f"}, "an item of the type function_call needs `call_id`"),
        ({"type": "function_call_output", "call_id": "c"}, "needs `output`"),
        ({"type": "item_reference"}, "needs `id`"),
        ({"type": "web_search_call", "id": "ws_1"}, "items of the type web_search_call are not supported"),
        ({"role": "user", "content": "a", "id": "x" * 257}, "256"),
        ({"type": "reasoning"}, "`input` cannot be empty"),
        (3, "`input.0`"),
    ],
)
def test_what_cannot_be_read(chatting: Server, item: object, message: str) -> None:
    """An item that the model cannot read is a 400 that names it and says why."""
    error = refusal(chatting, [item])
    assert error["param"] == "input"
    assert message in error["message"]


def test_items_get_ids() -> None:
    """An item keeps its id, or gets one of its type; the text of a message is of its author's type."""
    given = InputItem.model_validate({"role": "assistant", "content": "a", "id": "mine"})
    assert stored_form(given)["id"] == "mine"
    item = stored_form(InputItem.model_validate({"role": "user", "content": "a"}))
    assert item["type"] == "message"
    assert item["id"].startswith("msg_")
    assert item["content"] == [{"type": "input_text", "text": "a"}]
