"""Incremental decoding of a JSON string: its text as it comes."""

import json
import re

_CHARACTERS = re.compile(
    r"""(?:
    [^"\\]
    | \\["\\/bfnrt]
    | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}  # A surrogate pair is one character.
    | (?!\\u[dD][89abAB]..(?:\\(?:u.{0,3})?)?\Z)\\u[0-9a-fA-F]{4}  # A half of one, only if the other cannot follow.
    )*""",
    re.VERBOSE | re.DOTALL,
)
_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
"""Stands for half of a surrogate pair, which UTF-8 does not have."""


class JsonText:
    """Decoder of one string (RFC 8259, section 7) that arrives in pieces, from its opening quote on."""

    def __init__(self) -> None:
        self._input = ""
        self._is_open = False
        self._is_closed = False

    def feed(self, text: str) -> str:
        """Decodes on. Returns the characters that are whole; what is behind the closing quote is passed over."""
        if self._is_closed:
            return ""
        self._input += text
        if self._input and not self._is_open:
            self._is_open, self._input = True, self._input.removeprefix('"')
        found = _CHARACTERS.match(self._input)
        end = found.end() if found else 0
        whole, self._input = self._input[:end], self._input[end:]
        self._is_closed = self._input.startswith('"')
        return _SURROGATE.sub(REPLACEMENT, json.loads(f'"{whole}"', strict=False))
