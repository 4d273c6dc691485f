"""Escapes special tokens in messages: a chat template's become tokens, the same text in a message stays text.

Before rendering, a sentinel (a noncharacter of Unicode) is inserted into every special token's text in a message, and
into a piece that could become one together with neighbouring text. After rendering, the special tokens still whole are
the template's: the prompt is split there. A request without any such text (nearly all) is encoded as it is.

Every search takes time linear in the text, and none holds the interpreter for long, because clients choose the text: a
regular expression of twelve tokens took 10 s for 2 MB of the character with which most of them begin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peregrine_router.request import InvalidRequest
from peregrine_router.text.token_spans import TokenSpans
from peregrine_router.text.tokenizer import Tokenizer

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that Unicode never assigns: any that a request does not contain can be its sentinel."""
OWN_NAMES = frozenset(
    {
        *("messages", "tools", "documents", "role", "content", "name", "tool_calls", "tool_call_id", "id", "type"),
        *("function", "description", "parameters", "arguments"),
    }
)
"""Names by which templates read messages and tools; all other names in them are the client's."""


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
        self._texts = list(filter(None, tokenizer.special_tokens))
        self._heads = {text[:at] for text in self._texts for at in range(1, len(text))}
        self._tails = {text[at:] for text in self._texts for at in range(1, len(text))}
        self._lengths = range(1, max(map(len, self._texts), default=1))
        self._sentinels = [each for each in NONCHARACTERS if not any(each in text for text in self._texts)]

    def unused_sentinel(self, text: str) -> str:
        """A noncharacter that `text` does not contain. Raises InvalidRequest if it contains them all."""
        sentinel = next((sentinel for sentinel in self._sentinels if sentinel not in text), None)
        if sentinel is None:
            raise InvalidRequest("`messages` cannot hold every noncharacter of Unicode")
        return sentinel

    def protect(self, value: Any, sentinel: str) -> Any:
        """The same JSON with a sentinel in special tokens' text: whole ones, and parts of one at a string's ends.

        OWN_NAMES stay as they are.
        """
        if isinstance(value, str):
            return self._protect_text(value, sentinel)
        if isinstance(value, list):
            return [self.protect(each, sentinel) for each in value]
        if isinstance(value, dict):
            return {
                name if name in OWN_NAMES else self._protect_text(name, sentinel): self.protect(each, sentinel)
                for name, each in value.items()
            }
        return value

    def encode(self, prompt: EscapedPrompt) -> tuple[int, ...]:
        """Token ids of a rendered prompt: whole special tokens become themselves, everything else is text."""
        if prompt.sentinel not in prompt.text:
            ids = self._tokenizer.encode(prompt.text, add_special_tokens=False, has_special_tokens=True)
            return tuple(ids)
        return tuple(self.spans(prompt).ids)

    def spans(self, prompt: EscapedPrompt) -> TokenSpans:
        """The tokens, and where they stand in `prompt.plain`."""
        spans, at = TokenSpans(), 0
        for escaped, is_token in self._pieces(prompt):
            piece = escaped.replace(prompt.sentinel, "")
            if is_token:
                spans.append([self._tokenizer.special_tokens[piece]], [(0, len(piece))], at)
            elif piece:
                spans.extend(self._tokenizer.encode_spans(piece, add_special_tokens=False), at)
            at += len(piece)
        return spans

    def _protect_text(self, text: str, sentinel: str) -> str:
        text = self._protect_ends(text, sentinel)
        for token in self._texts:
            broken = token[0] + sentinel + token[1:]
            if len(token) == 1:  # It cannot be split: its sentinel follows it.
                text = text.replace(token, broken)
            # Again where it overlaps itself, up to as often as it has characters.
            while len(token) > 1 and token in text:
                text = text.replace(token, broken)
        return text

    def _protect_ends(self, text: str, sentinel: str) -> str:
        """Puts a sentinel behind a token's beginning at the end of the text, and before a token's end at its start;
        white space around is looked at with the text and without, because templates trim."""
        for end in sorted({len(text.rstrip()), len(text)}, reverse=True):
            if any(text[max(0, end - length) : end] in self._heads for length in self._lengths):
                text = text[:end] + sentinel + text[end:]
        for start in sorted({len(text) - len(text.lstrip()), 0}, reverse=True):
            if any(text[start : start + length] in self._tails for length in self._lengths):
                text = text[:start] + sentinel + text[start:]
        return text

    def _pieces(self, prompt: EscapedPrompt) -> Iterator[tuple[str, bool]]:
        """(text, whether it is a whole special token) of each part of the prompt. Of tokens that begin at one place the
        longest counts."""
        text, at = prompt.text, 0
        for start, negative_length in sorted(self._whole_tokens(text, prompt.sentinel)):
            if start >= at:
                yield text[at:start], False
                at = start - negative_length
                yield text[start:at], True
        yield text[at:], False

    def _whole_tokens(self, text: str, sentinel: str) -> Iterator[tuple[int, int]]:
        """(start, -length) of every special token, those that overlap others included."""
        for token in self._texts:
            start = text.find(token)
            while start >= 0:
                if len(token) > 1 or not text.startswith(sentinel, start + 1):
                    yield start, -len(token)
                start = text.find(token, start + 1)
