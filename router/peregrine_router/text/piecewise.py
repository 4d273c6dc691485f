"""Encodes a long text in pieces whose tokens together are those of the whole.

`tokenizers` keeps 200 to 500 bytes a token while it encodes: 2 MB of text took 420 to 860 MB, and freeing that held the
interpreter for 0.1 to 0.3 s.

Each piece is encoded beyond its end, and the next begins where one of its last tokens begins. That is exact for BPE: a
sequence of tokens is the encoding of a word if, and only if, any two neighbours are the encoding of their joined text.
So a word may be cut behind a token if the rest begins with the token that followed it. The words are those of the whole
text, because GPT-2's regular expression finds them from left to right: it finds the same ones if it begins at a cut,
unless an apostrophe is near (`_is_in_contraction`) or digits are counted (`_TRIPLES`).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import tokenizers

from peregrine_router.text.token_spans import TokenSpans

PIECE_CHARACTERS = 2**14
"""Characters encoded at once: at most 10 MB, and 2 ms to make Python's objects of the tokens."""
TAIL_TOKENS = 16
"""Tokens at the end of a piece that its end may have changed. They are encoded again with the next one."""
MAX_TRIES = 64
"""Tokens before these behind which a place to cut is looked for."""
_TRIPLES = {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False}
_STEPS = (
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "Digits", "individual_digits": False},
    {"type": "Digits", "individual_digits": True},
    _TRIPLES,
)
"""Steps of Falcon's pre-tokenizers beside the byte-level one. They look at one character, or at three digits."""
_BPE_OPTIONS = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
"""Options of BPE beside which its tokens are not those of its merges alone."""
_CONTRACTION = re.compile("'(?:[stmd]|re|ve|ll)")
_DIGITS = "0123456789"


class PiecewiseEncoder:
    """Encodes texts by one tokenizer."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        steps = _steps(json.loads(backend.to_str()))
        added = backend.get_added_tokens_decoder().values()
        self._has_pieces = _is_local(backend, steps)
        self._has_triples = _TRIPLES in steps
        self._tail_characters = max((len(token.content) for token in added), default=0)
        """Characters at the end of a piece in which the beginning of an added token may have been read as text."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenSpans:
        """The tokens of `text`, and where they stand in it."""
        if self._has_pieces and len(text) > 2 * PIECE_CHARACTERS:
            spans = self._in_pieces(text)
            if spans is not None:
                return spans
        spans = TokenSpans()
        spans.append(*self._encode(text, add_special_tokens=add_special_tokens))
        return spans

    def _in_pieces(self, text: str) -> TokenSpans | None:
        """The same; None if there is no place to cut, or the end of a piece has changed more than its last tokens."""
        spans, start, expected = TokenSpans(), 0, None
        while True:
            ids, offsets = self._encode(text[start : start + PIECE_CHARACTERS], add_special_tokens=False)
            if expected is not None and ids[0] != expected:
                return None
            if start + PIECE_CHARACTERS >= len(text):
                spans.append(ids, offsets, start)
                return spans
            at = next((at for at in self._cuts(text, start, offsets)), None)
            if at is None:
                return None
            spans.append(ids[:at], offsets[:at], start)
            start, expected = start + offsets[at][0], ids[at]

    def _encode(self, text: str, *, add_special_tokens: bool) -> tuple[list[int], list[tuple[int, int]]]:
        # `encode` holds the GIL throughout and would block the event loop; the batch form releases it.
        encoding = self._backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        return encoding.ids, encoding.offsets

    def _cuts(self, text: str, start: int, offsets: list[tuple[int, int]]) -> Iterator[int]:
        """Numbers of the tokens of a piece with which the next one may begin, from the last."""
        last = len(offsets) - TAIL_TOKENS
        for at in range(last, max(0, last - MAX_TRIES), -1):
            here = offsets[at][0]
            is_whole = offsets[at - 1][1] == here  # Not within a character.
            if (
                is_whole
                and PIECE_CHARACTERS - here >= self._tail_characters
                and self._may_cut(text, start, start + here)
            ):
                yield at

    def _may_cut(self, text: str, start: int, at: int) -> bool:
        """Whether the words of `text[start:]` are those of `text[start:at]` and of `text[at:]`."""
        if _is_in_contraction(text, at):
            return False
        if self._has_triples and text[at] in _DIGITS:
            before = text[start:at]
            return (len(before) - len(before.rstrip(_DIGITS))) % 3 == 0
        return True


def _is_in_contraction(text: str, at: int) -> bool:
    """Whether an end such as 's may be cut at a place, or be taken for one if the text begins there."""
    is_cut = any((match := _CONTRACTION.match(text, start)) and match.end() > at for start in (at - 2, at - 1))
    return is_cut or (_CONTRACTION.match(text, at) is not None and not text[at - 1].isalnum())


def _steps(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a tokenizer's pre-tokenizer."""
    given = settings["pre_tokenizer"] or {"type": "Sequence", "pretokenizers": []}
    return list(given["pretokenizers"]) if given["type"] == "Sequence" else [given]


def _is_local(backend: tokenizers.Tokenizer, steps: list[dict[str, Any]]) -> bool:
    """Whether tokens depend on the text around them as this module says."""
    settings = json.loads(backend.to_str())
    model, added = settings["model"], backend.get_added_tokens_decoder().values()
    byte_level = [step for step in steps if step["type"] == "ByteLevel"]
    return (
        settings["normalizer"] is None
        and model["type"] == "BPE"
        and not any(model.get(name) for name in _BPE_OPTIONS)
        and len(byte_level) == 1
        and not byte_level[0]["add_prefix_space"]
        and byte_level[0].get("use_regex", True)
        and all(step in _STEPS for step in steps if step not in byte_level)
        and not any(token.lstrip or token.rstrip or token.single_word for token in added)
        and (settings["post_processor"] or {"type": "TemplateProcessing"})["type"] == "TemplateProcessing"
        and not backend.encode("").ids
    )
