"""Lists and maps of request bodies."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from fakes import INFO, FakeEngine
from peregrine_router.admission.fields import MAX_OBJECTS, LogitBias, Objects
from peregrine_router.app import build_app
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer


def schemas(schema: Any, wrapper: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(type of the schema around it, schema) of every part of a core schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield wrapper, schema
            wrapper = schema["type"]
        for name, part in schema.items():
            if name != "json_schema_input_schema":  # For the document only.
                yield from schemas(part, wrapper)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from schemas(part, wrapper)


def body_schemas(tokenizer: Tokenizer) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, wrapper, schema) of every part of every route's body."""
    app = build_app(FakeEngine(tokenizer), tokenizer, Settings(), INFO)
    included: list[Any] = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    for route in (route for router in included for route in router.routes):
        if isinstance(route, APIRoute) and route.body_field is not None:
            core = route.body_field._type_adapter.core_schema
            yield from ((route.path, wrapper, schema) for wrapper, schema in schemas(core))


def test_the_first_error_ends_every_list(tokenizer: Tokenizer) -> None:
    """Whatever list a route's body has, its second wrong item is not looked at; maps that pydantic checks item by item
    are checked by a function before."""
    found = list(body_schemas(tokenizer))
    assert {"list", "dict"} <= {schema["type"] for _, _, schema in found}
    for path, wrapper, schema in found:
        if schema["type"] in ("list", "set", "frozenset", "tuple"):
            assert schema.get("fail_fast"), (
                f"{path}: use Items or Objects of admission/fields.py for {str(schema)[:200]}"
            )
        if schema["type"] == "dict" and schema.get("values_schema", {"type": "any"})["type"] != "any":
            assert wrapper == "function-before", f"{path}: check its items as LogitBias does: {str(schema)[:200]}"


def test_a_list_of_objects_is_bounded() -> None:
    """One item too many is an error, without a look at those behind it."""
    adapter = TypeAdapter(Objects[int])
    assert len(adapter.validate_python([1] * MAX_OBJECTS)) == MAX_OBJECTS
    with pytest.raises(ValidationError, match="too_long"):
        adapter.validate_python([1] * (MAX_OBJECTS + 1) + ["x"])


@pytest.mark.parametrize(
    "bias", [{"a": 0}, {"1": "x"}, {"1": True}, {"1": None}, {"1": 1e999}, {"-1": 0}, {"1" * 11: 0}]
)
def test_bad_bias(bias: dict[str, Any]) -> None:
    """The first of many entries that are no bias of a token is the only error, and it is shown cut."""
    with pytest.raises(ValidationError) as error:
        TypeAdapter(LogitBias).validate_python({**bias, **{f"{n}x": 0 for n in range(100)}})
    assert error.value.error_count() == 1
    assert "token ids must be mapped to numbers" in str(error.value)
