"""JSON of tool calls as models write it."""

import json

import pytest

from peregrine_router.api.openai.call_syntax import Call, may_be_call, parse_calls

NAMES = ("dive",)
CALL = Call("dive", '{"to": 1.0}')


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "dive", "arguments": {"to": 1.0}}',
        '{"arguments": {"to": 1.0}, "name": "dive"}',
        '{ "name":"dive","parameters":{"to": 1.0} }',
        '{"type": "function", "name": "dive", "arguments": {"to": 1.0}, "id": null}',
        '{"id": "1", "type": "function", "function": {"name": "dive", "arguments": "{\\"to\\": 1.0}"}}',
        '{"function": {"arguments": {"to": 1.0}, "name": "dive"}}',
        '[{"name": "dive", "arguments": {"to": 1.0}}]',
    ],
)
def test_forms_of_a_call(text: str) -> None:
    """Any key order, Llama's and OpenAI's forms, and lists; arguments keep their text."""
    assert parse_calls(text, NAMES) == [CALL]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "[[]]",
        '{"name": "swim", "arguments": {}}',
        '{"name": "dive"}',
        '{"name": "dive", "arguments": null}',
        '{"name": "dive", "arguments": "to"}',
        '{"name": "dive", "arguments": []}',
        '{"name": "dive", "arguments": {}, "parameters": {}}',
        '{"name": "dive", "arguments": {}, "result": 1}',
        '{"name": 1, "arguments": {}}',
        '[{"name": "dive", "arguments": {}}, {"name": "swim", "arguments": {}}]',
        '{"name": "dive", "arguments": ' + '{"a":' * 9999 + "1" + "}" * 10000 + "}",
    ],
)
def test_what_is_no_call(text: str) -> None:
    """Unknown tools, arguments that are no object, further keys, and nesting that no parser takes."""
    assert parse_calls(text, NAMES) == []


@pytest.mark.parametrize("text", [json.dumps([{"name": "dive", "arguments": {}}], indent=1), '{"id": 1, "name": "x"}'])
def test_beginnings_of_calls_may_be_calls(text: str) -> None:
    """A head that a call can have is never judged to be none."""
    assert all(may_be_call(text[:end], NAMES) for end in range(1, len(text) + 1))


@pytest.mark.parametrize("text", ["{1", '{"height"', '{"name": "swim"', "[1", "[[", '{"name": "swim", "name": "dive"'])
def test_other_json_is_known_by_its_head(text: str) -> None:
    """The first key, or the name if it comes first, tells other JSON from calls."""
    assert not may_be_call(text, NAMES)
