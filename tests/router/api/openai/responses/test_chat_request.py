"""Parameters of a response, as the chat's and as the engine's."""

import json
from typing import Any

import pytest

from chats import prompt
from fakes import EOS, Server
from peregrine_router.api.openai.responses.chat_request import chat_request
from peregrine_router.api.openai.responses.input_items import stored_form
from peregrine_router.api.openai.responses.schemas import ResponseRequest
from peregrine_router.api.openai.schemas import ChatRequest
from responding import DIVE, respond


def chat_of(**given: Any) -> ChatRequest:
    """The chat that a request asks for."""
    body = ResponseRequest.model_validate({"input": "a", **given})
    return chat_request(body, [stored_form(item) for item in body.input])


def test_parameters() -> None:
    """Limits, sampling and extra parameters are the chat's."""
    chat = chat_of(max_output_tokens=3, temperature=0.5, top_p=0.9, top_k=4, seed=7, parallel_tool_calls=False)
    values = chat.model_dump()
    assert (chat.max_completion_tokens, chat.seed, chat.parallel_tool_calls) == (3, 7, False)
    assert (values["temperature"], values["top_p"], values["top_k"]) == (0.5, 0.9, 4)


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "name": "x", "schema": {"type": "integer"}, "strict": True}, {"type": "integer"}),
    ],
)
def test_text_format(chatting: Server, given: Any, source: Any) -> None:
    """`text.format` becomes the grammar of the output."""
    respond(chatting, text={"format": given})
    grammar = chatting.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert json.loads(grammar.source) == source


def test_text_is_no_constraint(chatting: Server) -> None:
    """OpenAI's default form leaves the text unconstrained."""
    respond(chatting, text={"format": {"type": "text"}, "verbosity": "low"})
    assert chatting.engine.requests[-1].sampling.grammar is None


def test_tools_are_explained(chatting: Server) -> None:
    """Functions are those of a chat: a template without tools has them in the system message, after instructions."""
    respond(chatting, instructions="be", tools=[DIVE])
    assert prompt(chatting).startswith("s:be\n\nTo call a function")
    assert '{"name": "dive"' in prompt(chatting)
    respond(chatting, tools=[DIVE], tool_choice="none")
    assert prompt(chatting) == f"u:the fox{EOS}a:"


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "dive"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "dive"}]},
    ],
)
def test_a_required_call_is_constrained(caller: Server, choice: Any) -> None:
    """However it is required, the output follows the grammar of the call."""
    respond(caller, tools=[DIVE], tool_choice=choice)
    grammar = caller.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert '"const":"dive"' in grammar.source


def test_auto_is_openais_for_every_model(chatting: Server) -> None:
    """A response is never in TGI's words, also if its model is named tgi: `auto` leaves the output free."""
    respond(chatting, model="tgi", tools=[DIVE])
    assert chatting.engine.requests[-1].sampling.grammar is None
