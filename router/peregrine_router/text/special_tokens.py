"""Special tokens that a chat template writes become tokens; the same text in a message stays text.

Before rendering, a special token's text in a message is broken by a noncharacter of Unicode, and so is what could
become one together with its neighbours; afterwards the prompt is split at the special tokens that are still whole, and
those are the template's. A request without any such text (nearly all) is rendered and encoded as it is.
"""

import re
from dataclasses import dataclass
from typing import Any

from peregrine_router.request import InvalidRequest
from peregrine_router.text.tokenizer import Tokenizer

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Never assigned, not for interchange: any that a request does not hold can sentinel places in it."""
_NOT_BEFORE_A_MARK = r"(?![\ufdd0-\ufdef])"
_NEVER = r"(?!)"


@dataclass(frozen=True, slots=True)
class EscapedPrompt:
    """A prompt in which `sentinel` breaks the special tokens that are to stay text."""

    text: str
    sentinel: str

    @property
    def plain(self) -> str:
        """As a reader sees it."""
        return self.text.replace(self.sentinel, "")


class SpecialTokenEscaper:
    """Knows the special tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        texts = list(filter(None, tokenizer.special_tokens))
        heads = {text[:at] for text in texts for at in range(1, len(text))}
        tails = {text[at:] for text in texts for at in range(1, len(text))}
        self._whole = re.compile(f"({_any_of(texts)})")
        self._head = re.compile(rf"(?:{_any_of(heads)})(?=\s*\Z)")
        self._tail = re.compile(rf"\A\s*(?={_any_of(tails)})")

    def unused_sentinel(self, text: str) -> str:
        """A noncharacter that the text does not hold."""
        sentinel = next((sentinel for sentinel in NONCHARACTERS if sentinel not in text), None)
        if sentinel is None:
            raise InvalidRequest("`messages` cannot hold every noncharacter of Unicode")
        return sentinel

    def protect(self, value: Any, sentinel: str) -> Any:
        """The same JSON, the sentinel breaking special tokens' text, whole or cut off at either end of a string."""
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
        """Special tokens that are whole become themselves, everything else text."""
        if prompt.sentinel not in prompt.text:
            ids = self._tokenizer.encode(prompt.text, add_special_tokens=False, has_special_tokens=True)
            return tuple(ids)
        return tuple(id for id, _, _ in self.spans(prompt))

    def spans(self, prompt: EscapedPrompt) -> list[tuple[int, int, int]]:
        """(id, start, stop) of the tokens, in characters of the plain prompt."""
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
    """The longest first. A token of one character cannot be broken inside: a sentinel behind it tells."""
    ordered = sorted(texts, key=len, reverse=True)
    return "|".join(re.escape(text) + (_NOT_BEFORE_A_MARK if len(text) == 1 else "") for text in ordered) or _NEVER
