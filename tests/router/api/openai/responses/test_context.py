"""Conversations continued by `previous_response_id` and by references to items."""

from collections.abc import Iterator

import pytest

from chats import prompt
from fakes import EOS, FakeEngine, Server, make_tokenizer, serve
from peregrine_router.text.chat_template import Chat
from responding import DIVE, refusal, respond, stream

SAID = f"u:the fox{EOS}a: falcons dive{EOS}"


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Server]:
    """A server that keeps no responses."""
    tokenizer = make_tokenizer()
    chat = Chat(tokenizer, "{{ messages[0].content }}", {})
    with serve(FakeEngine(tokenizer), chat=chat, response_store_bytes=0) as server:
        yield server


def test_a_conversation_goes_on(chatting: Server) -> None:
    """The input and output of all responses before come first; each can be continued more than once."""
    first = respond(chatting)
    second = respond(chatting, "why", previous_response_id=first.id)
    assert prompt(chatting) == f"{SAID}u:why{EOS}a:"
    assert second.previous_response_id == first.id
    respond(chatting, "go on", previous_response_id=second.id)
    assert prompt(chatting) == f"{SAID}u:why{EOS}a: falcons dive{EOS}u:go on{EOS}a:"
    respond(chatting, "how", previous_response_id=first.id)
    assert prompt(chatting) == f"{SAID}u:how{EOS}a:"


def test_instructions_are_not_carried_over(chatting: Server) -> None:
    """The previous response's are not read again."""
    first = respond(chatting, instructions="be quick")
    respond(chatting, "why", previous_response_id=first.id, instructions="be slow")
    assert prompt(chatting) == f"s:be slow{EOS}{SAID}u:why{EOS}a:"


def test_a_streamed_response_can_be_continued(chatting: Server) -> None:
    """It is stored at its end."""
    id = stream(chatting)[-1].response.id
    respond(chatting, "why", previous_response_id=id)
    assert prompt(chatting) == f"{SAID}u:why{EOS}a:"


def test_a_call_is_answered(caller: Server) -> None:
    """The output of a call follows the response that made it; without it the conversation cannot go on."""
    first = respond(caller, tools=[DIVE])
    (call,) = first.output
    assert call.type == "function_call"
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "deep"}
    respond(caller, [output], previous_response_id=first.id)
    assert prompt(caller).endswith(f"}}}}{EOS}u:Result: deep{EOS}a:")
    error = refusal(caller, "why", previous_response_id=first.id)
    assert error["message"].startswith(f"Input validation error: No tool output found for function call {call.call_id}")


def test_unknown_responses(chatting: Server) -> None:
    """One that is not stored is a 400 with OpenAI's code and words."""
    kept = respond(chatting, store=False)
    assert kept.store is False  # type: ignore[attr-defined]
    for id in ("resp_nothing", kept.id):
        error = refusal(chatting, previous_response_id=id)
        assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
        assert error["message"].startswith(f"Previous response with id '{id}' not found.")


def test_a_server_without_a_store(forgetful: Server) -> None:
    """It says in the answer that nothing is stored, whatever was asked for."""
    response = respond(forgetful, store=True)
    assert response.store is False  # type: ignore[attr-defined]
    assert forgetful.client.get(f"/v1/responses/{response.id}").status_code == 404


def test_references(chatting: Server) -> None:
    """A reference stands for an item of a stored response, with its type or without."""
    first = respond(chatting)
    for reference in ({"type": "item_reference", "id": first.output[0].id}, {"id": first.output[0].id}):
        respond(chatting, [{"role": "user", "content": "hi"}, reference, {"role": "user", "content": "why"}])
        assert prompt(chatting) == f"u:hi{EOS}a: falcons dive{EOS}u:why{EOS}a:"


def test_unknown_references(chatting: Server) -> None:
    """One to nothing is a 404 in OpenAI's words."""
    error = refusal(chatting, [{"type": "item_reference", "id": "msg_nothing"}], status=404)
    assert error["message"].startswith("Item with id 'msg_nothing' not found. Items are not persisted when `store` is")
