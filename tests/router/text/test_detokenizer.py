"""Tokens to text as they come."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import EOS, make_tokenizer
from peregrine_router.text.detokenizer import MAX_UNDECODED_TOKENS

TOKENIZER = make_tokenizer()
INVALID = [id for id in range(320) if TOKENIZER.describe(id).text == "\ufffd"]
"""Tokens that are no character by themselves."""


def stream(ids: list[int], *stop: str) -> tuple[list[str], str]:
    text = TOKENIZER.stream(stop)
    return [*map(text.push, ids), text.flush()], text.text


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives(text: str) -> None:
    """Any Unicode text, streamed token by token, is itself again."""
    deltas, whole = stream(TOKENIZER.encode(text, add_special_tokens=False))
    assert "".join(deltas) == whole == text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 340) | st.sampled_from(INVALID), max_size=3 * MAX_UNDECODED_TOKENS))
def test_any_tokens_stream_as_they_decode(ids: list[int]) -> None:
    """Any ids (invalid UTF-8, special and unknown tokens among them) stream to exactly what the tokenizer decodes."""
    deltas, whole = stream(ids)
    assert "".join(deltas) == whole == TOKENIZER.decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_sequences_cut_where_they_first_end(text: str, stop: list[str]) -> None:
    """The text ends with the first stop sequence to be complete, however tokens cut it."""
    ids = TOKENIZER.encode(text)
    decoded = TOKENIZER.stream(tuple(stop))
    joined = "".join(map(decoded.push, ids)) + decoded.flush()
    assert joined == decoded.text
    assert text.startswith(joined)
    if decoded.matched is None:
        assert joined == text
        assert not any(each in text for each in stop)
    else:
        assert joined.endswith(decoded.matched)
        # Nothing matched earlier, but within the token that completed the match.
        assert not any(each in joined[:-1] for each in stop)


@settings(max_examples=300, deadline=None)
@given(st.text("ab é😀", max_size=30), st.lists(st.text("ab é😀", min_size=1, max_size=4), min_size=1, max_size=3))
def test_hidden_stops_never_leak(text: str, stop: list[str]) -> None:
    """With `hides_stop` the text ends before the first stop to be complete, and nothing of that was given out."""
    decoded = TOKENIZER.stream(tuple(stop), hides_stop=True)
    shown = ""
    ids = TOKENIZER.encode(text)
    for number, token_id in enumerate(ids, 1):
        shown += decoded.push(token_id)
        seen = TOKENIZER.decode(ids[:number])
        if decoded.matched is None and "\ufffd" not in seen:
            held = max((n for each in stop for n in range(1, len(each)) if seen.endswith(each[:n])), default=0)
            assert shown == seen[: len(seen) - held]
    shown += decoded.flush()
    ends = [(text.find(each) + len(each), text.find(each)) for each in stop if each in text]
    assert shown == decoded.text == (text[: min(ends)[1]] if ends else text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_stream_is_the_text_whatever_the_stops(text: str, stop: list[str]) -> None:
    """Random Unicode with random stops: without a match, the stream is what the tokenizer decodes."""
    ids = TOKENIZER.encode(text)
    for hides_stop in (False, True):
        decoded = TOKENIZER.stream(tuple(stop), hides_stop)
        joined = "".join(map(decoded.push, ids)) + decoded.flush()
        assert joined == decoded.text
        if decoded.matched is None:
            assert joined == TOKENIZER.decode(ids) == text


def test_split_character_is_held_back() -> None:
    """A character of several tokens comes with the last; cut off, it reads as U+FFFD."""
    ids = TOKENIZER.encode("😀")
    assert len(ids) == 4
    assert stream(ids)[0] == ["", "", "", "😀", ""]
    assert stream(ids[:2])[0] == ["", "", "\ufffd"]


def test_leading_spaces_are_kept() -> None:
    """The first token of a stream keeps its space."""
    assert stream(TOKENIZER.encode("  the fox"))[1] == "  the fox"


def test_special_tokens_are_hidden_in_text_and_shown_alone() -> None:
    """A special token adds no text; described, it shows itself."""
    assert stream([0, *TOKENIZER.encode("fox"), 0])[1] == "fox"
    token = TOKENIZER.describe(0, -1.5)
    assert (token.text, token.special, token.logprob) == (EOS, True, -1.5)


def test_invalid_bytes_without_end_stay_cheap() -> None:
    """Thousands of invalid bytes in a row take linear time and come out as they go."""
    started = time.perf_counter()
    text = TOKENIZER.stream()
    for _ in range(8000):
        text.push(INVALID[0])
    assert time.perf_counter() - started < 2
    assert len(text.text) > 7900
