"""Grammars as clients write them."""

from typing import Any

import pytest

from peregrine_router.admission.grammar_schema import GrammarSpec, parse_grammar
from peregrine_router.request import InvalidRequest
from peregrine_server.protocol import Grammar

SCHEMA = {"type": "object", "title": "é"}
UNIQUE = {"type": "array", "uniqueItems": True}
TEXT = '{"type":"object","title":"é"}'


def parse(spec: dict[str, Any]) -> Grammar | None:
    return parse_grammar(GrammarSpec.model_validate(spec), max_length=100).grammar


@pytest.mark.parametrize(
    ("spec", "grammar"),
    [
        ({"type": "json", "value": SCHEMA}, Grammar("json_schema", TEXT)),
        ({"type": "json_object", "value": TEXT}, Grammar("json_schema", TEXT)),
        ({"type": "json_object"}, Grammar("json_schema", '{"type":"object"}')),
        ({"type": "json_object", "schema": SCHEMA}, Grammar("json_schema", TEXT)),
        ({"type": "json_object", "schema": None}, Grammar("json_schema", '{"type":"object"}')),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, Grammar("json_schema", TEXT)),
        ({"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}}, Grammar("json_schema", TEXT)),
        ({"type": "regex", "value": "a+"}, Grammar("regex", "a+")),
        ({"type": "lark", "value": 'start: "a"'}, Grammar("lark", 'start: "a"')),
    ],
)
def test_every_form_of_a_grammar(spec: dict[str, Any], grammar: Grammar) -> None:
    """TGI's and OpenAI's forms of a schema become the same compact JSON; other grammars stay their text."""
    assert parse(spec) == grammar


def test_text_is_unconstrained() -> None:
    """The type `text` and a missing grammar both mean no grammar."""
    assert parse({"type": "text"}) is None
    assert parse_grammar(None, 100).grammar is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "regex", "value": ""}, "must be the text of a regex grammar"),
        ({"type": "lark", "value": {"a": 1}}, "must be the text of a lark grammar"),
        ({"type": "regex", "value": "a" * 101}, "more than 100 bytes"),
        ({"type": "regex", "value": "é" * 51}, "more than 100 bytes"),
        ({"type": "regex", "value": "a\0"}, "NUL"),
        ({"type": "json", "value": "[" * 100_000}, "the schema is no JSON"),
        ({"type": "json", "value": 1}, "must be an object"),
        ({"type": "json_object", "schema": 1}, "must be an object"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "must be an object"),
    ],
)
def test_grammars_that_are_refused(spec: dict[str, Any], message: str) -> None:
    """A grammar without text, too long, or with a schema that is no JSON object is refused with the reason."""
    with pytest.raises(InvalidRequest, match=message):
        parse(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": UNIQUE}},
        {"type": "json_schema", "value": {"name": "x", "schema": UNIQUE}},
    ],
)
def test_strict_refuses_what_is_otherwise_left_out(spec: dict[str, Any]) -> None:
    """OpenAI's `strict`, in both forms of the type json_schema."""
    assert parse_grammar(GrammarSpec.model_validate(spec), 100).dropped == ("uniqueItems (at #)",)
    (key,) = spec.keys() - {"type"}
    with pytest.raises(InvalidRequest, match=r"`strict` .*uniqueItems \(at #\)"):
        parse({**spec, key: {**spec[key], "strict": True}})
