"""Incremental scan of a JSON object or array: where it ends, or where it is no longer JSON."""

import re

_WHITE_SPACE = " \t\n\r"
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SCALAR_CHARACTERS = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzE")
_STRING_RUN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE_PREFIX = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{0,4})?')
_CLOSERS = {"{": "}", "[": "]"}
_VALUE = frozenset({"value", "value or ]"})
_KEY = frozenset({"key", "key or }"})


class JsonScan:
    """Strict scan (RFC 8259) of one object or array that arrives in pieces. Each character is looked at once."""

    def __init__(self) -> None:
        self.is_complete = False
        self.is_broken = False
        self._closers: list[str] = []
        self._expected = "value"
        self._scalar: list[str] = []
        self._is_in_string = False
        self._escape = ""

    def feed(self, text: str) -> int:
        """Scans on. Returns how many characters of `text` belong to the value; fewer than all if it ended or broke."""
        position = 0
        while position < len(text):
            if self._is_in_string and not self._escape:
                run = _STRING_RUN.match(text, position)
                position = run.end() if run else position
                if position == len(text):
                    break
            step = self._string_step if self._is_in_string else self._step
            if not step(text[position]):
                self.is_broken = True
                break
            position += 1
            if self.is_complete:
                break
        return position

    def _string_step(self, character: str) -> bool:
        """A character of a string that is not in `_STRING_RUN`. Returns whether it is valid."""
        if self._escape or character == "\\":
            escape = self._escape + character
            is_whole = len(escape) == (6 if escape.startswith("\\u") else 2)
            self._escape = "" if is_whole else escape
            return _ESCAPE_PREFIX.fullmatch(escape) is not None
        self._is_in_string = False
        self._expected = "colon" if self._expected in _KEY else "comma or end"
        return character == '"'

    def _step(self, character: str) -> bool:
        """A character outside strings. Returns whether it is valid."""
        if character in _SCALAR_CHARACTERS:
            self._scalar.append(character)
            return self._expected in _VALUE
        if self._scalar:
            if not _SCALAR.fullmatch("".join(self._scalar)):
                return False
            self._scalar, self._expected = [], "comma or end"
        return character in _WHITE_SPACE or self._punctuation(character)

    def _punctuation(self, character: str) -> bool:
        if character in _CLOSERS:
            return self._open(character)
        if character in "}]":
            return self._close(character)
        if character == '"':
            self._is_in_string = True
            return self._expected in _VALUE | _KEY
        if character == ":" and self._expected == "colon":
            self._expected = "value"
            return True
        if character == "," and self._expected == "comma or end":
            self._expected = "key" if self._closers[-1] == "}" else "value"
            return True
        return False

    def _open(self, character: str) -> bool:
        is_expected = self._expected in _VALUE
        self._closers.append(_CLOSERS[character])
        self._expected = "key or }" if character == "{" else "value or ]"
        return is_expected

    def _close(self, character: str) -> bool:
        empty = {"}": "key or }", "]": "value or ]"}[character]
        is_expected = self._expected in ("comma or end", empty)
        is_expected = is_expected and self._closers.pop() == character
        self._expected, self.is_complete = "comma or end", is_expected and not self._closers
        return is_expected
