"""JSON schemas as grammars: objects end, and what a grammar cannot hold is left out and reported."""

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llguidance import LLTokenizer

from peregrine_router.admission import json_schema
from peregrine_router.admission.json_schema import normalize
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import InvalidRequest
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import Grammar
from peregrine_server.structured.compiler import allowed_tokens, compile_grammar, load_grammar_tokenizer
from schemas import random_schema

VOCAB, EOS = 4096, 0
TOKENIZER = Tokenizer.load(demo_path())
INTEGER = {"type": "integer"}
AB = {"a": INTEGER, "b": INTEGER}
PYDANTIC = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
BASE = {"type": "object", "properties": {"id": INTEGER}, "required": ["id"]}
CHILD = {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": INTEGER}}]}
UNION = {
    "properties": {"id": INTEGER},
    "anyOf": [{"properties": {"a": INTEGER}, "required": ["a"]}, {"properties": {"b": INTEGER}, "required": ["b"]}],
}


@pytest.fixture(scope="module")
def tokenizer() -> LLTokenizer:
    return load_grammar_tokenizer(demo_path(), VOCAB, (EOS,))


def accepts(tokenizer: LLTokenizer, schema: dict[str, Any], value: Any) -> bool:
    """Whether the grammar of a schema allows a value, and then the end."""
    normalized, _ = normalize(schema)
    matcher = compile_grammar(tokenizer, Grammar("json_schema", json.dumps(normalized)))
    for token_id in (*TOKENIZER.encode(json.dumps(value)), EOS):
        if not allowed_tokens(matcher, VOCAB)[token_id]:
            return False
        matcher.consume_token(token_id)
    return True


@pytest.mark.parametrize(
    ("schema", "allowed", "forbidden"),
    [
        (PYDANTIC, {"ok": True}, {"ok": True, "x": 1}),
        ({"properties": {"a": INTEGER}}, {"a": 1}, 1),
        ({"properties": {"a": INTEGER}}, {}, {"b": 1}),
        ({"type": "object", "properties": {}}, {}, {"b": 1}),
        ({**PYDANTIC, "additionalProperties": True}, {"ok": True, "x": 1}, {"x": 1}),
        ({**PYDANTIC, "additionalProperties": INTEGER}, {"ok": True, "x": 1}, {"ok": True, "x": "a"}),
        ({**PYDANTIC, "unevaluatedProperties": INTEGER}, {"ok": True, "x": 1}, {"ok": True, "x": "a"}),
        ({"type": "object", "properties": {"a": INTEGER}, "required": ["b"]}, {"b": 1}, {"b": 1, "c": 1}),
        ({"properties": {"a": {"properties": {"b": INTEGER}}}}, {"a": {"b": 1}}, {"a": {"c": 1}}),
        ({"patternProperties": {"^x": INTEGER}, "properties": {"a": INTEGER}}, {"x1": 1}, {"y": 1}),
        ({"type": "object"}, {"anything": [1]}, 1),
        ({"$defs": {"base": BASE}, "$ref": "#/$defs/base"}, {"id": 1}, {"id": 1, "x": 1}),
        ({"$defs": {"base": BASE}, "allOf": [{"$ref": "#/$defs/base"}]}, {"id": 1}, {"id": 1, "x": 1}),
        ({"$defs": {"base": BASE}, **CHILD}, {"id": 1, "n": 2}, {"id": 1, "x": 1}),
        ({"$defs": {"base": BASE, "c": CHILD}, "$ref": "#/$defs/c"}, {"id": 1, "n": 2}, {"id": 1, "x": 1}),
        ({"$defs": {"base": BASE}, "items": CHILD, "type": "array"}, [{"id": 1, "n": 2}], [{"id": 1, "x": 2}]),
        (UNION, {"id": 1, "b": 1}, {"id": 1, "b": 1, "a": 1}),
        (UNION, {"id": 1, "a": 1}, {"id": 1}),
        (
            {"properties": {"a": INTEGER, "b": INTEGER}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"b": 1},
            {},
        ),
        ({"properties": {"a": INTEGER}, "if": {}, "then": {"properties": {"b": INTEGER}}}, {"b": 1}, {"c": 1}),
    ],
)
def test_objects_have_their_listed_properties(
    tokenizer: LLTokenizer, schema: dict[str, Any], allowed: Any, forbidden: Any
) -> None:
    """Alone, nested, behind references, and combined: those of all parts, unless `additionalProperties` says more."""
    assert accepts(tokenizer, schema, allowed)
    assert not accepts(tokenizer, schema, forbidden)


def test_a_recursive_schema_is_closed_at_every_level(tokenizer: LLTokenizer) -> None:
    """A reference to an open copy of itself does not end the closing of what is inside."""
    node = {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"next": {"$ref": "#/$defs/node"}}}]}
    schema = {"$defs": {"base": BASE, "node": node}, "$ref": "#/$defs/node"}
    assert accepts(tokenizer, schema, {"id": 1, "next": {"id": 2}})
    assert not accepts(tokenizer, schema, {"id": 1, "next": {"id": 2, "x": 1}})


def test_constants_are_no_schemas() -> None:
    """Values of `const`, `enum`, `default` and `examples` that look like schemas stay as they are."""
    data = {"properties": {"format": 1}, "not": {}}
    schema = {"anyOf": [{"const": data}, {"enum": [data]}], "default": data, "examples": [data]}
    assert normalize(schema) == (schema, ())


@pytest.mark.parametrize(
    ("part", "keyword"),
    [
        ({"type": "array", "items": INTEGER, "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "not": {"const": 3}}, "not"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "array", "contains": {"const": 3}, "minContains": 2}, "contains"),
        ({"type": "object", "properties": {"b": INTEGER}, "if": {"required": ["b"]}, "else": False}, "if"),
        ({"type": "object", "dependentRequired": {"b": ["c"]}}, "dependentRequired"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "string", "pattern": "^(?!x)"}, "pattern"),
        ({"properties": {"b": INTEGER, "c": INTEGER, "d": INTEGER}, "minProperties": 2}, "minProperties"),
        ({"properties": {"b": INTEGER, "c": INTEGER, "d": INTEGER}, "maxProperties": 2}, "maxProperties"),
    ],
)
def test_keywords_that_only_narrow_are_left_out_and_reported(
    tokenizer: LLTokenizer, part: dict[str, Any], keyword: str
) -> None:
    """The rest is enforced; a `strict` schema is refused, with the keyword and its place."""
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    normalized, dropped = normalize(schema)
    assert dropped == (f"{keyword} (at #/properties/a)",)
    compile_grammar(tokenizer, Grammar("json_schema", json.dumps(normalized)))
    with pytest.raises(InvalidRequest, match=rf"`strict` .*{keyword} \(at #/properties/a\)"):
        normalize(schema, is_strict=True)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "string", "format": "phone"},
        {"type": "integer", "format": "int32"},
        {"type": "array", "uniqueItems": False},
        {"type": "object", "propertyNames": {"type": "string"}},
        {"oneOf": [{"type": "integer"}, {"type": "null"}]},
        {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "discriminator": {"propertyName": "kind"}},
        {"properties": {"b": INTEGER, "c": INTEGER}, "minProperties": 1},
        {"type": "object", "additionalProperties": INTEGER, "minProperties": 2, "maxProperties": 4},
    ],
)
def test_what_narrows_nothing_or_is_held_is_not_reported(tokenizer: LLTokenizer, part: dict[str, Any]) -> None:
    """Formats that the engine does not know are annotations; `strict` schemas may have all of these."""
    schema = {"$defs": {"a": BASE, "b": BASE}, "type": "object", "properties": {"a": part}}
    normalized, dropped = normalize(schema, is_strict=True)
    assert dropped == ()
    compile_grammar(tokenizer, Grammar("json_schema", json.dumps(normalized)))


def test_known_formats_are_enforced(tokenizer: LLTokenizer) -> None:
    """A date is one."""
    schema = {"type": "string", "format": "date"}
    assert accepts(tokenizer, schema, "2024-02-01")
    assert not accepts(tokenizer, schema, "soon")


def test_a_schema_too_deep_to_read_is_refused() -> None:
    """The message says so, and nothing else fails."""
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="too deeply nested"):
        normalize(schema)


def test_the_given_schema_is_left_alone() -> None:
    """It is the client's, and shown to the model."""
    for seed in range(50):
        schema = random_schema(seed)
        before = json.dumps(schema)
        normalize(schema)
        assert json.dumps(schema) == before


def test_any_json_is_a_schema_or_refused() -> None:
    """Keywords with values of any type raise nothing but InvalidRequest."""
    keys = [*json_schema.IN_PLACE, *json_schema.MAPS, *json_schema.CHILDREN, *json_schema.OBJECT_KEYWORDS]
    keys += ["type", "const", "enum", "not", "pattern", "format", "minProperties", "maxProperties", "if", "then"]
    source = random.Random(3)

    def value(depth: int) -> Any:
        if depth == 0 or source.random() < 0.3:
            return source.choice([None, True, 0, -1.5, "a", "#", "#/$defs/a", "#/anyOf/0", [], {}, [[]], ["a"]])
        if source.random() < 0.3:
            return [value(depth - 1) for _ in range(source.randint(0, 3))]
        return {source.choice([*keys, "a"]): value(depth - 1) for _ in range(source.randint(0, 4))}

    for _ in range(2000):
        given = {source.choice(keys): value(4) for _ in range(3)}
        normalized, dropped = normalize(given)
        assert isinstance(normalized, dict)
        assert all(isinstance(each, str) for each in dropped)


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        (UNION, [{"id": 1, "a": 1}, {"b": 2}, {"a": 1, "b": 2}, {"a": 1, "c": 2}]),
        ({"$defs": {"base": BASE}, **CHILD}, [{"id": 1}, {"id": 1, "n": 2}, {"n": 2}, {"id": 1, "x": 1}]),
    ],
)
def test_a_normalized_schema_only_narrows(schema: dict[str, Any], values: list[Any]) -> None:
    """Every value that a closed object allows, the given schema allows."""
    normalized, _ = normalize(schema)
    for each in values:
        is_valid = Draft202012Validator(schema).is_valid(each)
        assert is_valid or not Draft202012Validator(normalized).is_valid(each)


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"$ref": f"#/oneOf/{number + 1}"} for number in range(2300)]},
        {"properties": {f"p{number}": True for number in range(1500)}, "anyOf": [{"required": ["a"]}] * 1500},
        {"$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"properties": AB}]} for n in range(150)}},
    ],
)
def test_schemas_made_to_take_long_are_refused(schema: dict[str, Any]) -> None:
    """The work on the event loop is bounded, whatever refers to what."""
    with pytest.raises(InvalidRequest, match="combines too many others"):
        normalize(schema)
