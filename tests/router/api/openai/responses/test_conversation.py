"""Items of a conversation as messages of a chat."""

import pytest

from peregrine_router.api.openai.responses.answer_schemas import Item
from peregrine_router.api.openai.responses.conversation import check_calls, messages_of
from peregrine_router.api.openai.responses.input_items import InputItem, stored_form
from peregrine_router.request import InvalidRequest


def items(*given: dict[str, object]) -> list[Item]:
    """Items in the form in which they are stored."""
    return [stored_form(InputItem.model_validate(item)) for item in given]


def message(role: str, content: str) -> dict[str, object]:
    return {"role": role, "content": content}


def call(id: str) -> dict[str, object]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}


def output(id: str) -> dict[str, object]:
    return {"type": "function_call_output", "call_id": id, "output": "9"}


def told(*given: dict[str, object], instructions: str | None = None) -> list[tuple[str, object, int]]:
    """(role, content, number of calls) of each message."""
    messages = messages_of(instructions, items(*given))
    return [(message.role, message.content, len(message.tool_calls or ())) for message in messages]


def test_calls_are_of_one_message() -> None:
    """The assistant's text and calls of a turn are one message, as a chat completion would have them."""
    turn = (message("assistant", "a"), call("1"), call("2"), message("assistant", "b"), output("1"), output("2"))
    assert told(*turn) == [("assistant", "ab", 2), ("tool", "9", 0), ("tool", "9", 0)]


def test_messages_stay_apart() -> None:
    """Two messages of the assistant without calls are two."""
    turn = (message("assistant", "a"), message("assistant", "b"))
    assert told(*turn) == [("assistant", "a", 0), ("assistant", "b", 0)]


def test_instructions_come_first() -> None:
    """They are a system message; one that begins the conversation is joined to them, because templates take one."""
    assert told(message("user", "a"), instructions="be") == [("system", "be", 0), ("user", "a", 0)]
    both = told(message("developer", "quick"), message("user", "a"), instructions="be")
    assert both == [("system", "be\n\nquick", 0), ("user", "a", 0)]


def test_a_call_without_output_is_refused() -> None:
    """In OpenAI's words."""
    with pytest.raises(InvalidRequest, match="No tool output found for function call c1"):
        check_calls(items(call("c1")))


def test_an_output_without_call_is_refused() -> None:
    """In OpenAI's words; an output before its call is one too."""
    with pytest.raises(InvalidRequest, match="No tool call found for function call output with call_id c1"):
        check_calls(items(output("c1"), call("c1")))
