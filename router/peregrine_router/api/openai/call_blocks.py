"""Parts of generated text that may be tool calls: a JSON value, and a block of them in a fence or in tags.

Both take characters until they know. Each looks at a character once, so that no output makes reading slow.
"""

import re
from collections.abc import Collection

from peregrine_router.api.openai.call_syntax import MAX_HEAD, Call, may_be_call, parse_calls
from peregrine_router.api.openai.json_scan import JsonScan

FENCE = "```"
BLOCKS = {
    "<tool_call>": "</tool_call>",
    **{FENCE + language: FENCE for language in ("", "json", "tool_call", "tool_calls")},
}
"""Opening -> closing."""
_WHITE_SPACE = re.compile(r"\s*")


class JsonValue:
    """A JSON object or array that may be calls."""

    def __init__(self, names: Collection[str]) -> None:
        self.calls: list[Call] = []
        """The calls, once it is complete."""
        self.is_text = False
        """Whether it is no call."""
        self.is_over = False
        """Whether the JSON is complete, or is none."""
        self._names = names
        self._scan = JsonScan()
        self._head = ""
        self._parts: list[str] = []

    def feed(self, text: str) -> int:
        """Reads on. Returns how many characters it took; fewer than all if it is over."""
        length = self._scan.feed(text)
        self._parts.append(text[:length])
        if len(self._head) < MAX_HEAD:
            self._head += text[:length]
        self.is_over = self._scan.is_complete or self._scan.is_broken
        if self._scan.is_complete and not self.is_text:
            self.calls = parse_calls("".join(self._parts), self._names)
        if not self.calls:
            self.is_text = self.is_text or self.is_over or not may_be_call(self._head, self._names)
        return length

    def take(self) -> str:
        """Returns the characters taken since the last call."""
        text = "".join(self._parts)
        self._parts.clear()
        return text


class Block:
    """One JSON value or several between an opening and its closing; text, if there is anything else in it."""

    def __init__(self, names: Collection[str]) -> None:
        self.opening = ""
        """Its opening, or as much of one as there is."""
        self.calls: list[Call] = []
        self.is_complete = False
        self.is_text = False
        self._names = names
        self._closing: str | None = None
        self._num_closing = 0
        self._value: JsonValue | None = None
        self._parts: list[str] = []

    def feed(self, text: str) -> int:
        """Reads on. Returns how many characters it took; fewer than all at the end of a part."""
        if self._closing is None:
            return self._open(text[0])
        length = self._between(text) if self._value is None else self._feed_value(self._value, text)
        self._parts.append(text[:length])
        return length

    def end(self) -> None:
        """Ends the input. The closing may be missing."""
        self.is_complete = bool(self.calls) and self._value is None
        self.is_text = not self.is_complete

    def body(self) -> str:
        """The characters taken behind the opening."""
        return "".join(self._parts)

    def _open(self, character: str) -> int:
        longer = self.opening + character
        if any(opening.startswith(longer) for opening in BLOCKS):
            self.opening = longer
            return 1
        self._closing = BLOCKS.get(self.opening)
        self.is_text = self._closing is None
        return 0

    def _between(self, text: str) -> int:
        blank = _WHITE_SPACE.match(text)
        if blank and blank.end() and not self._num_closing:
            return blank.end()
        assert self._closing is not None
        if self.calls and text[0] == self._closing[self._num_closing]:
            self._num_closing += 1
            self.is_complete = self._num_closing == len(self._closing)
            return 1
        if text[0] in "{[" and not self._num_closing:
            self._value = JsonValue(self._names)
        else:
            self.is_text = True
        return 0

    def _feed_value(self, value: JsonValue, text: str) -> int:
        length = value.feed(text)
        self.is_text = value.is_text
        if value.calls:
            self.calls += value.calls
            self._value = None
        return length
