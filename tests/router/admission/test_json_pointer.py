"""Places in a JSON document."""

from typing import Any

import pytest

from peregrine_router.admission.json_pointer import escape, look_up

DOCUMENT = {"$defs": {"a/b": {"c": 1}, "~": 2, "é": 3}, "anyOf": [{"d": 4}]}


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("#", DOCUMENT),
        ("#/$defs/a~1b/c", 1),
        ("#/$defs/~0", 2),
        ("#/$defs/%C3%A9", 3),
        ("#/anyOf/0/d", 4),
        ("#/anyOf/1", None),
        ("#/anyOf/d", None),
        ("#/anyOf/0/d/e", None),
        ("#anchor", None),
        ("http://a/b", None),
    ],
)
def test_a_reference_finds_its_value(reference: str, value: Any) -> None:
    """Escaped and percent-encoded names, places in lists; None where nothing is."""
    assert look_up(DOCUMENT, reference) == value


def test_an_escaped_name_is_found() -> None:
    """Both special characters."""
    assert look_up({"a~/b": 1}, f"#/{escape('a~/b')}") == 1
