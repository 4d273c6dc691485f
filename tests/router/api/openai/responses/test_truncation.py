"""`truncation`: the oldest turns of a conversation that does not fit are dropped, or it is refused."""

import pytest

from chats import prompt
from fakes import EOS, Server
from responding import refusal, respond


def turns(count: int) -> list[dict[str, str]]:
    """A conversation of a user's and an assistant's message of 30 characters a turn, and a last question."""
    said = ((role, f"{number:02d} {role[0] * 27}") for number in range(count) for role in ("user", "assistant"))
    return [*({"role": role, "content": text} for role, text in said), {"role": "user", "content": "why"}]


def test_the_oldest_turns_go(chatting: Server) -> None:
    """The rest begins with a user's message, is the most that fits beside the output, and keeps the system's."""
    respond(chatting, [{"role": "system", "content": "be"}, *turns(40)], truncation="auto", max_output_tokens=100)
    text = prompt(chatting)
    assert text.startswith(f"s:be{EOS}u:")
    assert text.endswith(f"u:39 {'u' * 27}{EOS}a:39 {'a' * 27}{EOS}u:why{EOS}a:")
    assert 500 - 80 < len(chatting.engine.requests[-1].prompt_ids) <= 500


def test_what_fits_stays(chatting: Server) -> None:
    """Nothing is dropped without need."""
    respond(chatting, turns(3), truncation="auto")
    assert prompt(chatting).startswith("u:00 ")


def test_what_was_dropped_is_not_stored(chatting: Server) -> None:
    """The response's input items are those that were read: a conversation does not grow without end."""
    response = respond(chatting, turns(40), truncation="auto")
    items = chatting.client.get(f"/v1/responses/{response.id}/input_items?order=asc&limit=100").json()["data"]
    assert items[0]["content"][0]["text"] in prompt(chatting)
    assert len(items) < 40


@pytest.mark.parametrize("input", [turns(40), "x" * 600])
def test_disabled_is_a_refusal(chatting: Server, input: object) -> None:
    """Unless asked for, nothing is dropped."""
    for given in ({}, {"truncation": "disabled"}, {"truncation": None}):
        assert refusal(chatting, input, **given)["code"] == "context_length_exceeded"


def test_the_last_turn_stays(chatting: Server) -> None:
    """If it alone is too long, the request is refused."""
    long = [*turns(2), {"role": "user", "content": "x" * 600}]
    assert refusal(chatting, long, truncation="auto")["code"] == "context_length_exceeded"
