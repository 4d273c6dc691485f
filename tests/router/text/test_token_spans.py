"""Spans of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from fakes import make_tokenizer

TOKENIZER = make_tokenizer()


@given(st.text(max_size=30))
def test_spans_are_bytes_of_the_text(text: str) -> None:
    """The bytes from start to stop are the token's text, whatever characters its neighbours split."""
    spans = TOKENIZER.encode_spans(text)
    found = list(spans.in_bytes(text))
    assert [id for id, _, _, _ in found] == TOKENIZER.encode(text)
    assert len(spans) == len(found)
    assert all(text.encode()[start:stop].decode() == piece for _, piece, start, stop in found)
