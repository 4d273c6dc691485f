"""Incremental scan of JSON: compared with the standard library's parser."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peregrine_router.api.openai.json_scan import JsonScan

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=9)
CONTAINERS = st.lists(VALUES) | st.dictionaries(st.text(), VALUES)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(CONTAINERS, st.booleans(), st.sampled_from([None, 1]), st.text(), st.integers(1, 5))
def test_the_end_of_a_value_is_found(value: object, is_ascii: bool, indent: int | None, rest: str, step: int) -> None:
    """An object or array ends at its last bracket, whatever follows and however it is split."""
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
    whole, scan, taken = text + rest, JsonScan(), 0
    for start in range(0, len(whole), step):
        taken += scan.feed(whole[start : start + step])
        if scan.is_complete:
            break
    assert scan.is_complete
    assert taken == len(text)


@settings(max_examples=30, deadline=None)
@given(CONTAINERS, st.data())
def test_json_that_is_damaged_is_not_completed(value: object, data: st.DataObject) -> None:
    """With a character deleted, doubled or replaced, the scan agrees with the parser on whether it is a value."""
    text = json.dumps(value)
    at = data.draw(st.integers(1, len(text) - 1))
    damaged = text[:at] + data.draw(st.sampled_from(["", text[at] * 2, *'",:{}[]0a\\\n'])) + text[at + 1 :]
    scan = JsonScan()
    end = scan.feed(damaged)
    assert scan.is_complete == is_json(damaged[:end])


def is_json(text: str) -> bool:
    """Whether the standard library parses it."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ('{"a": 1,}', 8),
        ("{'a': 1}", 1),
        ("{a: 1}", 1),
        ("[1 2]", 3),
        ("[01]", 3),
        ("[1.]", 3),
        ("[nul]", 4),
        ("[True]", 1),
        ('["a\nb"]', 3),
        ('["\\x"]', 3),
        ('["\\u12g4"]', 6),
        ('{"a" 1}', 5),
        ("[}", 1),
        ("{]", 1),
    ],
)
def test_the_first_wrong_character_is_found(text: str, length: int) -> None:
    """A scan breaks before the first character that no JSON has there; in numbers and literals, behind them."""
    scan = JsonScan()
    assert (scan.feed(text), scan.is_broken) == (length, True)
