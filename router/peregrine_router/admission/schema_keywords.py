"""JSON schema keywords that llguidance cannot hold, and the check whether the branches of a `oneOf` overlap."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

NARROWING: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "not": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "contains": (),
    "if": (True, {}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, False, {}),
}
"""Keyword that only narrows -> values that constrain nothing. The last one is read as `additionalProperties`."""
HELPERS = frozenset({"then", "else", "minContains", "maxContains"})
"""Keywords that mean nothing without `if` or `contains`."""
FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
)
"""Formats that llguidance enforces (its parser/src/json/formats.rs); any other is an annotation."""
TYPES = ("null", "boolean", "number", "string", "array", "object")
_LOOK_AROUND = re.compile(r"\\[bB]|\(\?<?[=!]")
_PIECES = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\(\?<?[=!]", re.DOTALL)


def is_held(key: str, value: Any) -> bool:
    """Whether the grammar holds a keyword, or the keyword constrains nothing."""
    if key == "pattern" and isinstance(value, str):
        return not has_look_around(value)
    # By type, too: 0 == False in Python, not in JSON.
    return key not in NARROWING or any(type(value) is type(each) and value == each for each in NARROWING[key])


def is_kept(key: str, value: Any) -> bool:
    """Whether a keyword is part of the grammar's schema."""
    if key == "format" and isinstance(value, str):
        return value in FORMATS
    return key not in NARROWING and key not in HELPERS and is_held(key, value)


def has_look_around(pattern: str) -> bool:
    r"""Whether a regular expression looks ahead or behind, or has a word boundary (`\b`)."""
    return any(_LOOK_AROUND.fullmatch(piece) for piece in _PIECES.findall(pattern))


def can_count(schema: dict[str, Any]) -> bool:
    """Whether llguidance counts an object's properties as `minProperties` and `maxProperties` say.

    It cannot count optional properties that are listed, but for none or at least one, and for at most one.
    """
    required = set(_strings(schema.get("required")))
    listed = schema.get("properties")
    low, high = schema.get("minProperties", 0), schema.get("maxProperties")
    if not isinstance(listed, dict) or not listed.keys() - required:
        return True
    if not isinstance(low, int) or not isinstance(high, int | None):
        return True
    is_map = "patternProperties" in schema or schema.get("additionalProperties") is not False
    low, high = low - len(required), None if high is None else high - len(required)
    return (low <= 0 and high is None) or (low <= 1 and high in (None, 1) and not is_map)


def may_overlap(branches: Sequence[dict[str, Any]]) -> bool:
    """Whether one value may fit two branches of a `oneOf`, whose references are resolved.

    Branches are told apart by their types, by constants, or by a required property of constants (a tag).
    """
    if len({id(branch) for branch in branches}) < len(branches):
        return True
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for branch in branches:
        for type in _types(branch):
            groups[type].append(branch)
    return any(len(group) > 1 and not _has_tag(group) for group in groups.values())


def _types(schema: dict[str, Any]) -> set[str]:
    given = schema.get("type", "object" if "properties" in schema else list(TYPES))
    names = given if isinstance(given, list) else [given]
    return {"number" if name == "integer" else str(name) for name in names}


def _has_tag(group: list[dict[str, Any]]) -> bool:
    tags = [_tags(schema) for schema in group]
    return _are_distinct(_constants(schema) for schema in group) or any(
        _are_distinct(each.get(name, set()) for each in tags) for name in tags[0]
    )


def _tags(schema: dict[str, Any]) -> dict[str, set[str]]:
    """Required properties that are constants, with their values."""
    required, properties = set(_strings(schema.get("required"))), schema.get("properties")
    named = properties.items() if isinstance(properties, dict) else ()
    return {name: _constants(each) for name, each in named if name in required and isinstance(each, dict)}


def _constants(schema: dict[str, Any]) -> set[str]:
    """The values that a schema allows, as JSON; empty if it is not made of constants."""
    enum = schema.get("enum")
    values = [schema["const"]] if "const" in schema else enum if isinstance(enum, list) else []
    return {json.dumps(value, sort_keys=True) for value in values}


def _are_distinct(sets: Iterable[set[str]]) -> bool:
    """Whether no set is empty, and none shares a value with another."""
    seen: set[str] = set()
    for values in sets:
        if not values or values & seen:
            return False
        seen |= values
    return True


def _strings(names: Any) -> list[str]:
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
