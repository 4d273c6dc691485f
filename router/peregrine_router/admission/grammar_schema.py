"""JSON of a grammar in a request (TGI's `grammar`, OpenAI's `response_format`), and its translation to a `Grammar`."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from peregrine_router.admission.api_limits import set_by
from peregrine_router.request import InvalidRequest
from peregrine_server.protocol import Grammar

ANY_OBJECT = '{"type":"object"}'
"""Schema of `json_object` without a value."""


class JsonSchemaFormat(BaseModel):
    """OpenAI's wrapper of a schema; its name and description are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    name: str | None = Field(None, examples=["person"])
    schema_: dict[str, Any] | None = Field(None, alias="schema", examples=[{"type": "object"}])


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
    json_schema: JsonSchemaFormat | None = Field(None, description="For the type json_schema.")


def parse_grammar(spec: GrammarSpec | None, max_length: int) -> Grammar | None:
    """Translates a grammar without compiling it; None for unconstrained text. Raises InvalidRequest."""
    if spec is None or spec.type == "text":
        return None
    kind = spec.type
    grammar = Grammar(kind, _text(spec)) if kind in ("regex", "lark") else json_grammar(_schema(spec))
    if len(grammar.source) > max_length:
        flag = set_by("max_grammar_length")
        raise InvalidRequest(f"grammar is not valid: it has more than {max_length} characters{flag}")
    if "\0" in grammar.source:
        raise InvalidRequest("grammar is not valid: it cannot contain the NUL character")
    return grammar


def json_grammar(schema: dict[str, Any]) -> Grammar:
    """Makes the grammar of all JSON that is valid under a schema."""
    return Grammar("json_schema", json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


def _text(spec: GrammarSpec) -> str:
    if not isinstance(spec.value, str) or not spec.value:
        raise InvalidRequest(f"grammar is not valid: `value` must be the text of a {spec.type} grammar")
    return spec.value


def _schema(spec: GrammarSpec) -> dict[str, Any]:
    given = spec.value
    if spec.type == "json_schema":
        given = spec.json_schema.schema_ if spec.json_schema else None
        if given is None and isinstance(spec.value, dict):
            given = spec.value.get("schema")
    elif given is None and spec.type == "json_object":
        given = ANY_OBJECT
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"grammar is not valid: the schema is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidRequest("grammar is not valid: a JSON schema must be an object")
    return given
