"""Tokens to text as they come: no broken characters, no stop sequence where it is to stay hidden."""

from collections.abc import Callable

import tokenizers
from tokenizers.decoders import DecodeStream

MAX_HELD_TOKENS = 32
"""Tokens of undecided text after which `TextStream` looks for a place to cut. Without that, a model stuck in invalid
bytes costs quadratic time: DecodeStream decodes all that it holds at each step (4096 such tokens: 2 s on one core)."""
MAX_CHARACTER_TAIL = 4
"""An incomplete UTF-8 character has at most 3 bytes, and a token at least one: a cut is found this near the end."""


class TextStream:
    """The text of one generation as its tokens come. All that was returned, joined, is `text` once it is flushed.

    Until a stop sequence matches that equals the tokenizer's decoding of all tokens, U+FFFD for invalid bytes included.
    A stop sequence ends the text, wherever tokens cut it. With `hides_stop` it is left out, so whatever may still
    become one is held back; without, it is the text's end and nothing need wait.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        piece: Callable[[int], str | None],
        stop: tuple[str, ...] = (),
        hides_stop: bool = False,
    ) -> None:
        """`piece` says what a token adds wherever it stands: "" if it is special, None if that depends on others."""
        self._backend = backend
        self._piece = piece
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []
        self._stop = stop
        self._hides_stop = hides_stop
        self._parts: list[str] = []
        self._maybe_stop = ""
        self._num_shown = 0
        self.matched: str | None = None
        """The stop sequence that ended the text."""

    @property
    def text(self) -> str:
        """Everything given out so far."""
        return "".join(self._parts)

    def push(self, token_id: int) -> str:
        """What the token adds: nothing if it is special, leaves a character incomplete, or may begin a hidden stop."""
        piece = self._piece(token_id)
        if piece is not None and not (piece and self._held):
            if self._stop:
                return self._append(piece)
            self._parts.append(piece)
            return piece
        delta = self._step(token_id)
        return self._append(self._cut() if len(self._held) > MAX_HELD_TOKENS else delta)

    def flush(self) -> str:
        """What is still held when the generation ends: an incomplete character reads as U+FFFD."""
        held, self._held = self._held, []
        self._decoder = DecodeStream(skip_special_tokens=True)
        delta = self._append(self._decode(held)) if held else ""
        rest, self._maybe_stop = self._maybe_stop[self._num_shown :], ""
        return delta + self._give_out(rest)

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def _step(self, token_id: int) -> str:
        self._held.append(token_id)
        delta = self._decoder.step(self._backend, token_id)
        if delta is None:
            return ""
        self._held.clear()
        return delta

    def _cut(self) -> str:
        """Gives out held text up to a character boundary: decoded apart, the halves are then what they are together."""
        held, decode = self._held, self._decode
        whole = decode(held)
        for at in range(len(held) - 1, len(held) - 1 - MAX_CHARACTER_TAIL, -1):
            head, tail = decode(held[:at]), decode(held[at:])
            if head + tail == whole:
                self._held, self._decoder = [], DecodeStream(skip_special_tokens=True)
                return head + "".join(map(self._step, held[at:]))
        return ""

    def _append(self, delta: str) -> str:
        """Adds to the text, up to the first stop sequence that is complete; of two, the longer."""
        if self.matched is not None or not delta:
            return ""
        if not self._stop:
            return self._give_out(delta)
        window = self._maybe_stop + delta
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := window.find(stop)) >= 0]
        if found:
            end, start, self.matched = min(found)
            self._maybe_stop, shown = "", self._num_shown
            return self._give_out(window[shown : start if self._hides_stop else end])
        return self._hold(window)

    def _hold(self, window: str) -> str:
        """Gives out all but what may be the beginning of a stop sequence, or that too if a stop is to be seen."""
        undecided = max(_overlap(window, stop) for stop in self._stop)
        at, shown = len(window) - undecided, self._num_shown
        self._maybe_stop = window[at:]
        self._num_shown = 0 if self._hides_stop else undecided
        return self._give_out(window[shown : at if self._hides_stop else len(window)])

    def _give_out(self, text: str) -> str:
        if text:
            self._parts.append(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop` without being all of it."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return len(text) - at if at >= 0 else 0
