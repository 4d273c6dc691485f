"""Long texts encoded in pieces: the tokens are those of the whole."""

from collections.abc import Callable

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, pre_tokenizers

from fakes import EOS, falcon_pre_tokenizer, train_backend
from peregrine_router.launch.model_files import demo_path
from peregrine_router.text import piecewise
from peregrine_router.text.piecewise import PiecewiseEncoder
from peregrine_router.text.token_spans import TokenSpans

PARTS = (
    "a",
    "the ",
    " falcon",
    "'s",
    "'",
    "'re",
    "re",
    "l",
    " ",
    "  ",
    "\n",
    "\t ",
    "1",
    "23",
    "é",
    "ﬁ",
    "\u0301",
    "鳥",
)
MORE = (
    "ﬁ",
    ".",
    ">>",
    "<|",
    "😀",
    "²",
    "\u0663",
    "\x85",
    "\u00a0",
    "E'll",
    "don't",
    "\u200d",
    EOS,
    "<|a special text|>",
)


def falcon_backend() -> tokenizers.Tokenizer:
    """The pre-tokenizer of Falcon 7B, and an added token."""
    backend = train_backend()
    backend.pre_tokenizer = falcon_pre_tokenizer()
    backend.add_special_tokens([AddedToken("<|a special text|>", special=True, normalized=False)])
    return backend


def demo_backend() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(demo_path() / "tokenizer.json"))


BACKENDS = {"Falcon's": falcon_backend(), "demo": demo_backend(), "small": train_backend()}


def whole(backend: tokenizers.Tokenizer, text: str) -> TokenSpans:
    spans, encoding = TokenSpans(), backend.encode(text)
    spans.append(encoding.ids, encoding.offsets)
    return spans


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from(PARTS + MORE), st.integers(1, 40)), min_size=1, max_size=60))
def test_pieces_have_the_tokens_of_the_whole(name: str, parts: list[tuple[str, int]]) -> None:
    """Whatever stands at their ends: contractions, white space, digits, parts of characters, special tokens."""
    text = "".join(part * count for part, count in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "PIECE_CHARACTERS", 48)
        patch.setattr(piecewise, "TAIL_TOKENS", 8)
        found = PiecewiseEncoder(BACKENDS[name]).encode(text)
    expected = whole(BACKENDS[name], text)
    assert list(found) == list(expected)


LONG = {
    "one character": ">",
    "letters": "a",
    "digits": "1",
    "characters of two bytes": "é",
    "white space": " ",
    "lines": "a\n",
    "apostrophes": "'s",
    "quoted letters": "'a",
    "punctuation": "a.",
}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("text", LONG)
def test_every_long_text_has_pieces(name: str, text: str) -> None:
    """No text of one kind is encoded as a whole."""
    long = LONG[text] * 40_000
    spans = PiecewiseEncoder(BACKENDS[name])._in_pieces(long)
    assert spans is not None
    assert list(spans.ids) == BACKENDS[name].encode(long).ids


def _prefix_space(backend: tokenizers.Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _unknown_step(backend: tokenizers.Tokenizer) -> None:
    steps = [pre_tokenizers.Split(Regex("a+b"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)


def _normalizer(backend: tokenizers.Tokenizer) -> None:
    backend.normalizer = tokenizers.normalizers.NFC()


def _greedy_token(backend: tokenizers.Tokenizer) -> None:
    backend.add_tokens([AddedToken("x", lstrip=True)])


def _beginning(backend: tokenizers.Tokenizer) -> None:
    backend.post_processor = tokenizers.processors.TemplateProcessing(f"{EOS} $A", special_tokens=[(EOS, 0)])


@pytest.mark.parametrize("change", [_prefix_space, _unknown_step, _normalizer, _greedy_token, _beginning])
def test_other_tokenizers_encode_the_whole(change: Callable[[tokenizers.Tokenizer], None]) -> None:
    """A tokenizer that looks further than a cut may be is never asked for pieces."""
    backend = train_backend()
    assert PiecewiseEncoder(backend)._has_pieces
    change(backend)
    assert not PiecewiseEncoder(backend)._has_pieces
