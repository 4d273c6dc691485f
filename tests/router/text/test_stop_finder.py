"""Stop sequences in text that comes in pieces."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peregrine_router.text.stop_finder import StopFinder

SPECIAL = {"<|im_end|>": 5, "<|im_end|>>": 6, "<|im_start|>": 7}


def texts(finder: StopFinder, *pieces: str | int) -> str:
    """The text of pieces, of which ids are special tokens."""
    shown = [finder.push(finder.marks.get(piece, "") if isinstance(piece, int) else piece) for piece in pieces]
    return "".join((*shown, finder.flush()))


@pytest.mark.parametrize(
    ("stop", "pieces", "hidden", "ended"),
    [
        ("<|im_end|>", ("a", 5, "b"), "a", "a"),
        ("<|im_end|>", ("a", "<|im_", "end|>", "b"), "a", "a<|im_end|>"),
        ("<|im_end|>>", ("a", 6, "b"), "a", "a"),
        ("<|im_end|>\n", ("a", 5, "\n", "b"), "a", "a\n"),
        ("\n<|im_end|>", ("a", "\n", 5, "b"), "a", "a\n"),
        ("<|im_end|><|im_start|>", ("a", 5, 7, "b"), "a", "a"),
    ],
)
def test_a_special_token_in_a_stop_sequence(stop: str, pieces: tuple[str | int, ...], hidden: str, ended: str) -> None:
    """A special token's text in a stop sequence is that token, or the text itself; the token never shows."""
    for hides_stop, expected in ((True, hidden), (False, ended)):
        finder = StopFinder([stop], hides_stop, special_tokens=SPECIAL)
        assert texts(finder, *pieces) == expected
        assert finder.matched == stop


@pytest.mark.parametrize("pieces", [("a", 5, "b"), ("a", 5), ("a", 6, "\n", "b"), (5, "\r\n")])
def test_a_special_token_that_stops_nothing(pieces: tuple[str | int, ...]) -> None:
    """A special token that only begins a stop sequence leaves nothing in the text."""
    for hides_stop in (True, False):
        finder = StopFinder(["<|im_end|>\n"], hides_stop, special_tokens=SPECIAL)
        assert texts(finder, *pieces) == "".join(piece for piece in pieces if isinstance(piece, str))
        assert finder.matched is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi.\nUsers are people.", "Hi.\nUsers are people."),
        ("Hi.\nUser experience matters.", "Hi.\nUser experience matters."),
        ("Hi.\nUser \n\nUser2", "Hi.\nUser \n\nUser2"),
        ("Hi.\nUser: bye", "Hi."),
        ("Hi.\nUser", "Hi."),
        ("Hi.\nUser \n", "Hi."),
        ("Hi.\nUse", "Hi.\nUse"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_speakers_label(text: str, expected: str, size: int) -> None:
    """A label ends the text with a colon behind it or at the end, and begins a word otherwise."""
    finder = StopFinder([], True, ["\nUser"])
    assert texts(finder, *(text[at : at + size] for at in range(0, len(text), size))) == expected


@given(
    st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3),
    st.lists(st.text("abc", max_size=5), max_size=12),
)
def test_a_stop_sequence_ends_the_text_wherever_it_is_split(stop: list[str], pieces: list[str]) -> None:
    """A hidden one is found at its first place in the text, and nothing before it is kept back or returned twice."""
    text = "".join(pieces)
    found = [(text.find(each) + len(each), text.find(each)) for each in stop if each in text]
    assert texts(StopFinder(stop, hides_stop=True), *pieces) == (text[: min(found)[1]] if found else text)


def test_a_stop_sequence_that_nearly_matches_is_followed_in_linear_time() -> None:
    """Thousands of pieces beside the longest stop sequences take no time that a client would notice: 9 s before."""
    finder = StopFinder(["a" * 1023 + "b", "aac" + "a" * 1020, "aacb" + "a" * 1020], hides_stop=True)
    start = time.thread_time()
    for _ in range(10_000):
        finder.push("a")
    assert time.thread_time() - start < 1
