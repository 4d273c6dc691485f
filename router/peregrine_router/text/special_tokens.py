"""Escapes special tokens in messages: a chat template's become tokens, the same text in a message stays text.

Before rendering, a sentinel (a noncharacter of Unicode) is inserted into every special token's text in a message, and
into a piece that could become one together with neighbouring text. After rendering, the special tokens still whole are
the template's: the prompt is split there. A request without any such text (nearly all) is encoded as it is.
"""

import re
from dataclasses import dataclass
from typing import Any

from peregrine_router.request import InvalidRequest
from peregrine_router.text.tokenizer import Tokenizer

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that Unicode never assigns: any that a request does not contain can be its sentinel."""
_NOT_BEFORE_SENTINEL = r"(?![\ufdd0-\ufdef])"
_NEVER = r"(?!)"


@dataclass(frozen=True, slots=True)
class EscapedPrompt:
    """A prompt in which `sentinel` splits the special tokens that are to stay text."""

    text: str
    sentinel: str

    @property
    def plain(self) -> str:
        """The prompt without sentinels."""
        return self.text.replace(self.sentinel, "")


class SpecialTokenEscaper:
    """Escapes the special tokens of one tokenizer in messages, and encodes the rendered prompt."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        texts = list(filter(None, tokenizer.special_tokens))
        heads = {text[:at] for text in texts for at in range(1, len(text))}
        tails = {text[at:] for text in texts for at in range(1, len(text))}
        self._whole = re.compile(f"({_any_of(texts)})")
        self._head = re.compile(rf"(?:{_any_of(heads)})(?=\s*\Z)")
        self._tail = re.compile(rf"\A\s*(?={_any_of(tails)})")

    def unused_sentinel(self, text: str) -> str:
        """A noncharacter that `text` does not contain. Raises InvalidRequest if it contains them all."""
        sentinel = next((sentinel for sentinel in NONCHARACTERS if sentinel not in text), None)
        if sentinel is None:
            raise InvalidRequest("`messages` cannot hold every noncharacter of Unicode")
        return sentinel

    def protect(self, value: Any, sentinel: str) -> Any:
        """The same JSON with a sentinel in special tokens' text: whole ones, and parts of one at a string's ends.

        Keys and the values of `role` stay as they are.
        """
        if isinstance(value, str):
            text = self._whole.sub(lambda found: found[0][0] + sentinel + found[0][1:], value)
            text = self._head.sub(lambda found: found[0] + sentinel, text)
            return self._tail.sub(lambda found: found[0] + sentinel, text)
        if isinstance(value, list):
            return [self.protect(each, sentinel) for each in value]
        if isinstance(value, dict):
            return {name: each if name == "role" else self.protect(each, sentinel) for name, each in value.items()}
        return value

    def encode(self, prompt: EscapedPrompt) -> tuple[int, ...]:
        """Token ids of a rendered prompt: whole special tokens become themselves, everything else is text."""
        if prompt.sentinel not in prompt.text:
            ids = self._tokenizer.encode(prompt.text, add_special_tokens=False, has_special_tokens=True)
            return tuple(ids)
        return tuple(id for id, _, _ in self.spans(prompt))

    def spans(self, prompt: EscapedPrompt) -> list[tuple[int, int, int]]:
        """(id, start, stop) of each token; `start` and `stop` count characters of `prompt.plain`."""
        spans: list[tuple[int, int, int]] = []
        at = 0
        for number, escaped in enumerate(self._whole.split(prompt.text)):
            piece = escaped.replace(prompt.sentinel, "")
            if number % 2:
                spans.append((self._tokenizer.special_tokens[piece], at, at + len(piece)))
            elif piece:
                found = self._tokenizer.encode_spans(piece, add_special_tokens=False)
                spans += [(id, at + start, at + stop) for id, start, stop in found]
            at += len(piece)
        return spans


def _any_of(texts: "set[str] | list[str]") -> str:
    """Pattern of any of the texts, the longest first. A single character cannot be split: its sentinel follows it."""
    ordered = sorted(texts, key=len, reverse=True)
    return "|".join(re.escape(text) + (_NOT_BEFORE_SENTINEL if len(text) == 1 else "") for text in ordered) or _NEVER
