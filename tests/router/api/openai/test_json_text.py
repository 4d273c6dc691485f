"""Text of a JSON string as it comes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peregrine_router.api.openai.json_text import REPLACEMENT, JsonText


def decode(pieces: list[str]) -> str:
    """The text that the pieces give."""
    text = JsonText()
    return "".join(text.feed(piece) for piece in pieces)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.data())
def test_any_split_reads_as_the_whole(text: str, is_ascii: bool, data: st.DataObject) -> None:
    """Escapes and surrogate pairs that are split arrive whole; what follows the string is passed over."""
    encoded = json.dumps(text, ensure_ascii=is_ascii) + '} "more"'
    cuts = sorted(data.draw(st.sets(st.integers(0, len(encoded)))))
    pieces = [encoded[start:end] for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    assert decode(pieces) == text


def test_characters_are_not_held() -> None:
    """Only what may become an escape waits for its end."""
    text = JsonText()
    pieces = {'"': "", "ab": "ab", "\\": "", "n": "\n", "\\u00": "", "e9c": "éc", '" ': ""}
    assert [text.feed(piece) for piece in pieces] == list(pieces.values())


@pytest.mark.parametrize("escaped", ["\\ud83dx", "\\ude00x", "\\ud83d\\nx", "\\ud83d\\u0041x"])
def test_half_of_a_pair_is_replaced(escaped: str) -> None:
    """UTF-8, and so no answer, can hold one."""
    decoded = decode(list(f'"{escaped}"'))
    assert decoded[0] == REPLACEMENT
    assert decoded[-1] == "x"
