"""Reader of free text, in which calls can be anywhere: what of it is content, and what is tool calls.

A call is held until it is whole, because only then it is known to be one: JSON that breaks off, or names another tool,
is content as it stands.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from peregrine_router.api.openai.call_blocks import FENCE, Block, JsonValue
from peregrine_router.api.openai.call_syntax import Call

ARGUMENTS_PIECE = 8
"""Most characters of arguments in a delta of a call that was held: about what two tokens add."""
_CHUNK = 1024
"""Characters that are read at once. What is left of them is copied at every step."""
_START = re.compile(r"[{\[<`]")


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A part of a call: the first has the name, and each a piece of the arguments' text."""

    index: int
    """Number of the call in its answer."""
    name: str | None
    arguments: str


Piece = str | CallDelta
"""Content, or a part of a call."""


class CallReader:
    """Incremental parser of one sequence of free text. However the text is split, it finds the same.

    Loses nothing but the marks of calls (tags, fences) and white space between calls with nothing else between them.
    """

    def __init__(self, names: Collection[str], max_calls: int | None = None) -> None:
        """`names`: of the tools that can be called. Calls beyond `max_calls` are dropped."""
        self.num_calls = 0
        self.is_after_call = False
        """Whether the last piece was a call's."""
        self._names = names
        self._max_calls = max_calls
        self._input = ""
        self._json: JsonValue | None = None
        self._block: Block | None = None
        self._is_in_code = False
        """Whether it is within a fence that holds no calls: its text is no call, and the next fence closes it."""
        self._blank = ""
        """White space that is content only if it is beside other content."""
        self._is_blank = True
        """Whether there has been nothing else since the last call."""
        self._pieces: list[Piece] = []

    def push(self, delta: str) -> list[Piece]:
        """Reads a delta. Returns what is decided by it."""
        for start in range(0, len(delta), _CHUNK):
            self._input += delta[start : start + _CHUNK]
            self._read()
        pieces, self._pieces = self._pieces, []
        return pieces

    def end(self) -> list[Piece]:
        """Ends the input. Returns the rest."""
        while self._json is not None or self._block is not None:
            if self._block is not None:
                self._block.end()
                self._settle(self._block)
            elif self._json is not None:
                self._add_text(self._json.take())
                self._json = None
            self._read()
        self._add_text(self._input)
        if self._blank and not self.num_calls:
            self._pieces.append(self._blank)
        return self._pieces

    def _read(self) -> None:
        """Reads the input as far as possible."""
        while self._input:
            if self._json is not None:
                self._read_json(self._json)
            elif self._block is not None:
                self._read_block(self._block)
            elif not self._is_in_code:
                self._read_text()
            elif not self._read_code():
                return

    def _read_text(self) -> None:
        start = _START.search(self._input)
        self._pass_on(start.start() if start else len(self._input))
        if start and start[0] in "{[":
            self._json = JsonValue(self._names)
        elif start:
            self._block = Block(self._names)

    def _read_code(self) -> bool:
        """Passes code on. Returns False if the rest may be a part of the fence that closes it."""
        end = self._input.find(FENCE)
        self._is_in_code = end < 0
        self._pass_on(end + len(FENCE) if end >= 0 else len(self._input.rstrip("`")))
        return not self._is_in_code

    def _pass_on(self, length: int) -> None:
        self._add_text(self._input[:length])
        self._input = self._input[length:]

    def _read_json(self, value: JsonValue) -> None:
        self._input = self._input[value.feed(self._input) :]
        if value.is_text:
            self._add_text(value.take())
        self._add_calls(value.calls)
        if value.is_over:
            self._json = None

    def _read_block(self, block: Block) -> None:
        self._input = self._input[block.feed(self._input) :]
        if block.is_complete or block.is_text:
            self._settle(block)

    def _settle(self, block: Block) -> None:
        """Ends a block. What a block of text holds is read again: calls in tags that are not closed are calls."""
        self._block = None
        if block.is_complete:
            self._add_calls(block.calls)
            return
        opening = FENCE if block.opening.startswith(FENCE) else block.opening
        self._is_in_code = opening == FENCE
        self._add_text(opening)
        self._input = block.opening[len(opening) :] + block.body() + self._input

    def _add_text(self, text: str) -> None:
        if not text or (self._is_blank and text.isspace()):
            self._blank += text
            return
        text, self._blank = self._blank + text, ""
        self._is_blank = self.is_after_call = False
        if self._pieces and isinstance(self._pieces[-1], str):
            self._pieces[-1] += text
        else:
            self._pieces.append(text)

    def _add_calls(self, calls: list[Call]) -> None:
        for call in calls:
            self._blank, self._is_blank, self.is_after_call = "", True, True
            if self.num_calls != self._max_calls:
                self._pieces += _deltas(self.num_calls, call)
                self.num_calls += 1


def _deltas(index: int, call: Call) -> list[CallDelta]:
    starts = range(0, len(call.arguments), ARGUMENTS_PIECE)
    pieces = [call.arguments[start : start + ARGUMENTS_PIECE] for start in starts]
    return [CallDelta(index, call.name, ""), *(CallDelta(index, None, piece) for piece in pieces)]
