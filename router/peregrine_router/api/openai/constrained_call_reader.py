"""Reader of the calls that a grammar guarantees: arguments are passed on as they come."""

import re

from peregrine_router.api.openai.call_reader import CallDelta, Piece
from peregrine_router.api.openai.json_scan import JsonScan
from peregrine_router.api.openai.json_text import JsonText

_HEADER = re.compile(r'[\s\[\],}]*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)')
_CONTENT = re.compile(r'\{\s*"content"\s*:\s*(?=")')
_BETWEEN_CALLS = "}], \t\r\n"


class ConstrainedCallReader:
    """Incremental parser of one sequence whose grammar is that of `ToolPlan.grammar`: a call, or a list of calls.

    What is cut off before its name is known is content if nothing was called before, else it is left out.
    """

    def __init__(self, no_tool: str | None = None) -> None:
        """`no_tool`: name of the tool that is no call: its argument `content` is the answer in words."""
        self.num_calls = 0
        """Number of complete calls."""
        self._no_tool = no_tool
        self._num_begun = 0
        self._input = ""
        self._arguments: JsonScan | None = None
        self._is_content = False
        self._content: JsonText | None = None

    @property
    def is_after_call(self) -> bool:
        """Whether all that was read is whole calls."""
        return self.num_calls == self._num_begun > 0 and not self._input.strip(_BETWEEN_CALLS)

    def push(self, delta: str) -> list[Piece]:
        """Reads a delta. Returns what is decided by it."""
        self._input += delta
        pieces: list[Piece] = []
        while self._input and not self._is_content:
            name = self._read_header() if self._arguments is None else None
            if self._arguments is None or self._arguments.is_broken:
                break
            pieces.append(self._read_arguments(self._arguments, name))
        return self._read_content() if self._is_content else pieces

    def end(self) -> list[Piece]:
        """Ends the input. Returns the rest."""
        is_text = self._num_begun == 0 and not self._is_content
        return [self._input] if self._input and is_text else []

    def _read_header(self) -> str | None:
        """Reads up to the arguments of a call. Returns its name; None if it has not come yet, or content follows."""
        header = _HEADER.match(self._input)
        if header is None:
            return None
        self._take(header.end())
        if header[1] == self._no_tool:
            self._is_content = True
            return None
        self._arguments = JsonScan()
        self._num_begun += 1
        return header[1]

    def _read_arguments(self, scan: JsonScan, name: str | None) -> CallDelta:
        piece = CallDelta(self._num_begun - 1, name, self._take(scan.feed(self._input)))
        if scan.is_complete:
            self._arguments = None
            self.num_calls += 1
        return piece

    def _read_content(self) -> list[Piece]:
        if self._content is None:
            head = _CONTENT.match(self._input)
            if head is None:
                return []
            self._take(head.end())
            self._content = JsonText()
        text = self._content.feed(self._take(len(self._input)))
        return [text] if text else []

    def _take(self, length: int) -> str:
        taken, self._input = self._input[:length], self._input[length:]
        return taken
