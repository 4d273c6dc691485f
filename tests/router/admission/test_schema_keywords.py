"""Keywords that the grammar engine cannot hold, and whether branches of a `oneOf` overlap."""

from typing import Any

import pytest

from peregrine_router.admission.schema_keywords import has_look_around, may_overlap


@pytest.mark.parametrize(
    ("pattern", "looks"),
    [
        (r"^(?=.*\d).{8,}$", True),
        (r"(?!a)b", True),
        (r"(?<=a)b", True),
        (r"(?<!a)b", True),
        (r"\bfox\b", True),
        (r"(?:ab)+", False),
        (r"(?P<x>a)", False),
        (r"\(?=", False),
        (r"[(?=]", False),
        (r"\\(?=a)", True),
    ],
)
def test_look_around_is_found(pattern: str, looks: bool) -> None:
    """Look-ahead, look-behind and word boundaries, but not their characters escaped or in a class."""
    assert has_look_around(pattern) is looks


BASE = {"type": "object"}


def tagged(value: Any, *, required: bool = True) -> dict[str, Any]:
    return {"properties": {"kind": {"const": value}}, "required": ["kind"] if required else []}


@pytest.mark.parametrize(
    ("branches", "overlaps"),
    [
        ([{"type": "string"}, {"type": "null"}], False),
        ([{"type": "integer"}, {"type": "number"}], True),
        ([{"type": ["string", "null"]}, {"type": "null"}], True),
        ([{"const": 1}, {"enum": [2, 3]}], False),
        ([{"const": 1}, {"enum": [1, 3]}], True),
        ([tagged("a"), tagged("b"), {"type": "null"}], False),
        ([tagged("a"), tagged("a")], True),
        ([tagged("a", required=False), tagged("b", required=False)], True),
        ([{}, {"type": "string"}], True),
        ([BASE, BASE], True),
    ],
)
def test_branches_are_told_apart_by_types_constants_and_tags(branches: list[dict[str, Any]], overlaps: bool) -> None:
    """A property tells objects apart only if each branch requires it."""
    assert may_overlap(branches) is overlaps
