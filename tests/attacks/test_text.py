"""Text of clients: whatever is searched in it takes time linear in its length."""

import time
from collections.abc import Callable

import pytest
from tokenizers import AddedToken

from fakes import train_backend
from peregrine_router.text.special_tokens import NONCHARACTERS, EscapedPrompt, SpecialTokenEscaper
from peregrine_router.text.tokenizer import Tokenizer

FALCON = [
    f">>{name}<<"
    for name in (
        *("TITLE", "ABSTRACT", "INTRODUCTION", "SUMMARY", "COMMENT", "ANSWER"),
        *("QUESTION", "DOMAIN", "PREFIX", "SUFFIX", "MIDDLE"),
    )
]
"""Special tokens of Falcon besides its end of text."""
MANY = [f">>>tok{number}<<" for number in range(150)] + [f"<|{'x' * number}|>" for number in range(1, 150)]
SPECIAL = {"Falcon": FALCON, "many": MANY, "nested": [">" * number for number in range(2, 40)], "one": [">"]}
PIECES = (">", ">>TITLE<", ">>TITLE<<", "<|xxx", " ", "> ", "\u00e9", "a b ")
SHORT, LONG = 20_000, 160_000


def seconds(work: Callable[[], object]) -> float:
    """CPU time of the fastest of three runs."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def is_linear(work: Callable[[str], object], piece: str) -> bool:
    """Whether eight times the text takes less than 24 times as long."""
    short, long = (piece * (size // len(piece)) for size in (SHORT, LONG))
    return seconds(lambda: work(long)) < 24 * seconds(lambda: work(short)) + 0.05


def escaper(special: list[str]) -> SpecialTokenEscaper:
    backend = train_backend()
    backend.add_special_tokens([AddedToken(text, special=True) for text in special])
    return SpecialTokenEscaper(Tokenizer(backend, frozenset({0})))


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("special", SPECIAL)
def test_special_tokens_are_escaped_in_linear_time(special: str, piece: str) -> None:
    """Whatever the tokens and the message: before and after rendering."""
    escape = escaper(SPECIAL[special])
    assert is_linear(lambda text: escape.protect(text, NONCHARACTERS[0]), piece)
    assert is_linear(lambda text: list(escape._pieces(EscapedPrompt(text, NONCHARACTERS[0]))), piece)


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_falcons_special_tokens_cost_little(piece: str) -> None:
    """A message as long as a body may be: 10 s before."""
    escape, text = escaper(FALCON), piece * (2_000_000 // len(piece))
    assert seconds(lambda: escape.protect(text, NONCHARACTERS[0])) < 0.5
