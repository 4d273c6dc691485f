"""Incremental detokenizer: whole characters only, and stop sequences found across tokens."""

from collections.abc import Callable

import tokenizers
from tokenizers.decoders import DecodeStream

MAX_UNDECODED_TOKENS = 32
"""Undecoded tokens above which `TextStream` looks for a character boundary. Without this limit a model that repeats
invalid bytes costs quadratic time: DecodeStream decodes all of them at each step (4096 tokens: 2 s on one core)."""
MAX_CHARACTER_TAIL = 4
"""Tokens from the end within which the last boundary lies: an incomplete UTF-8 character has at most 3 bytes, and a
token at least one."""


class TextStream:
    """The text of one sequence as its tokens come. After `flush`, all returned pieces joined are `text`.

    Until a stop sequence matches, that text equals the tokenizer's decoding of all tokens, U+FFFD for invalid bytes
    included. A stop sequence ends the text even if it spans tokens. With `hides_stop` the text ends before it, so a
    suffix that may become a stop sequence is returned only when it is decided; without, the text ends behind it.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        piece: Callable[[int], str | None],
        stop: tuple[str, ...] = (),
        hides_stop: bool = False,
    ) -> None:
        """`piece`: the text that a token always contributes; "" if it is special, None if neighbours decide it."""
        self._backend = backend
        self._piece = piece
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._undecoded: list[int] = []
        self._stop = stop
        self._hides_stop = hides_stop
        self._parts: list[str] = []
        self._partial_stop = ""
        self._num_shown = 0
        self.matched: str | None = None
        """The stop sequence that ended the text."""

    @property
    def text(self) -> str:
        """All text returned so far."""
        return "".join(self._parts)

    def push(self, token_id: int) -> str:
        """The new text; empty if the token is special, leaves a character incomplete, or may begin a hidden stop."""
        piece = self._piece(token_id)
        if piece is not None and not (piece and self._undecoded):
            if self._stop:
                return self._append(piece)
            self._parts.append(piece)
            return piece
        delta = self._step(token_id)
        return self._append(self._cut() if len(self._undecoded) > MAX_UNDECODED_TOKENS else delta)

    def flush(self) -> str:
        """The rest of the text, when the sequence has ended; an incomplete character becomes U+FFFD."""
        undecoded, self._undecoded = self._undecoded, []
        self._decoder = DecodeStream(skip_special_tokens=True)
        delta = self._append(self._decode(undecoded)) if undecoded else ""
        rest, self._partial_stop = self._partial_stop[self._num_shown :], ""
        return delta + self._emit(rest)

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def _step(self, token_id: int) -> str:
        self._undecoded.append(token_id)
        delta = self._decoder.step(self._backend, token_id)
        if delta is None:
            return ""
        self._undecoded.clear()
        return delta

    def _cut(self) -> str:
        """Text up to the last character boundary: where both halves, decoded apart, join to the same text."""
        ids, decode = self._undecoded, self._decode
        whole = decode(ids)
        for at in range(len(ids) - 1, len(ids) - 1 - MAX_CHARACTER_TAIL, -1):
            head, tail = decode(ids[:at]), decode(ids[at:])
            if head + tail == whole:
                self._undecoded, self._decoder = [], DecodeStream(skip_special_tokens=True)
                return head + "".join(map(self._step, ids[at:]))
        return ""

    def _append(self, delta: str) -> str:
        """Adds to the text, up to the first complete stop sequence; of two that end together, the longer."""
        if self.matched is not None or not delta:
            return ""
        if not self._stop:
            return self._emit(delta)
        window = self._partial_stop + delta
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := window.find(stop)) >= 0]
        if found:
            end, start, self.matched = min(found)
            self._partial_stop, shown = "", self._num_shown
            return self._emit(window[shown : start if self._hides_stop else end])
        return self._emit_decided(window)

    def _emit_decided(self, window: str) -> str:
        """The part of `window` not yet returned, without a suffix that may begin a hidden stop sequence."""
        undecided = max(_overlap(window, stop) for stop in self._stop)
        at, shown = len(window) - undecided, self._num_shown
        self._partial_stop = window[at:]
        self._num_shown = 0 if self._hides_stop else undecided
        return self._emit(window[shown : at if self._hides_stop else len(window)])

    def _emit(self, text: str) -> str:
        if text:
            self._parts.append(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return len(text) - at if at >= 0 else 0
