"""JSON of a grammar in a request (TGI's `grammar`, OpenAI's `response_format`), and its translation to a `Grammar`."""

import json
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from peregrine_router.admission.api_limits import set_by
from peregrine_router.admission.json_schema import normalize
from peregrine_router.request import InvalidRequest
from peregrine_server.protocol import Grammar

ANY_OBJECT = '{"type":"object"}'
"""Schema of `json_object` without a value."""


class JsonSchemaFormat(BaseModel):
    """OpenAI's wrapper of a schema; its name and description are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    name: str | None = Field(None, examples=["person"])
    schema_: dict[str, Any] | None = Field(None, alias="schema", examples=[{"type": "object"}])
    strict: bool | None = Field(
        None, description="Refuse keywords that cannot be enforced, such as `uniqueItems`, instead of ignoring them."
    )


class GrammarSpec(BaseModel):
    """A grammar in TGI's form (`type`, `value`) or OpenAI's (`type`, `json_schema`)."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        json_schema_extra={"examples": [{"type": "regex", "value": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}]},
    )

    type: Literal["text", "json", "json_object", "json_schema", "regex", "lark"] = Field(
        description="json, json_object: `value` is a JSON schema or its text; without it json_object allows any "
        "object. json_schema: `value` or `json_schema` is {name, schema}. regex, lark: `value` is the grammar's text. "
        "text: unconstrained."
    )
    value: Any = Field(None, description="The schema, regular expression or Lark grammar.")
    schema_: Any = Field(
        default=None, alias="schema", description="llama.cpp's name for `value` of the type json_object."
    )
    json_schema: JsonSchemaFormat | None = Field(None, description="For the type json_schema.")


class ParsedGrammar(NamedTuple):
    """A grammar to compile; None for unconstrained text."""

    grammar: Grammar | None = None
    dropped: tuple[str, ...] = ()
    """Keywords of the client's schema that it does not hold, such as "not (at #/properties/a)"."""


def parse_grammar(spec: GrammarSpec | None, max_length: int) -> ParsedGrammar:
    """Translates a grammar without compiling it. Raises InvalidRequest."""
    if spec is None or spec.type == "text":
        return ParsedGrammar()
    if spec.type in ("regex", "lark"):
        return ParsedGrammar(_checked(Grammar(spec.type, _text(spec)), max_length))
    schema = schema_of(spec)
    _checked(_json_grammar(schema), max_length)
    normalized, dropped = normalize(schema, is_strict=is_strict(spec))
    return ParsedGrammar(_checked(_json_grammar(normalized), max_length), dropped)


def _checked(grammar: Grammar, max_length: int) -> Grammar:
    # A schema may hold lone surrogates, of which the compiler says what is wrong.
    if len(grammar.source.encode(errors="surrogatepass")) > max_length:
        flag = set_by("max_grammar_length")
        raise InvalidRequest(f"grammar is not valid: it has more than {max_length} bytes{flag}")
    if "\0" in grammar.source:
        raise InvalidRequest("grammar is not valid: it cannot contain the NUL character")
    return grammar


def _json_grammar(schema: dict[str, Any]) -> Grammar:
    return Grammar("json_schema", json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


def is_strict(spec: GrammarSpec) -> bool:
    """Whether the schema is refused if a keyword of it cannot be enforced."""
    if spec.type != "json_schema":
        return False
    return bool(spec.json_schema.strict if spec.json_schema else _value(spec).get("strict"))


def _value(spec: GrammarSpec) -> dict[str, Any]:
    return spec.value if isinstance(spec.value, dict) else {}


def _text(spec: GrammarSpec) -> str:
    if not isinstance(spec.value, str) or not spec.value:
        raise InvalidRequest(f"grammar is not valid: `value` must be the text of a {spec.type} grammar")
    return spec.value


def schema_of(spec: GrammarSpec) -> dict[str, Any]:
    """The JSON schema of a grammar that is one. Raises InvalidRequest."""
    given = spec.value
    if spec.type == "json_schema":
        given = spec.json_schema.schema_ if spec.json_schema else None
        if given is None:
            given = _value(spec).get("schema")
    elif given is None and spec.type == "json_object":
        given = ANY_OBJECT if spec.schema_ is None else spec.schema_
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            why = "it is too deeply nested" if isinstance(error, RecursionError) else error
            raise InvalidRequest(f"grammar is not valid: the schema is no JSON: {why}") from None
    if not isinstance(given, dict):
        raise InvalidRequest("grammar is not valid: a JSON schema must be an object")
    return given
