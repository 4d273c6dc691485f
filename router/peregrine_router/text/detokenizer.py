"""Incremental detokenizer: whole characters only."""

from collections.abc import Callable

import tokenizers
from tokenizers.decoders import DecodeStream

from peregrine_router.text.stop_finder import StopFinder

MAX_UNDECODED_TOKENS = 32
"""Undecoded tokens above which `TextStream` looks for a character boundary. Without this limit a model that repeats
invalid bytes costs quadratic time: DecodeStream decodes all of them at each step (4096 tokens: 2 s on one core)."""
MAX_CHARACTER_TAIL = 4
"""Tokens from the end within which the last boundary lies: an incomplete UTF-8 character has at most 3 bytes, and a
token at least one."""


class TextStream:
    """The text of one sequence as its tokens come. After `flush`, all returned pieces joined are `text`.

    Until a stop sequence matches, that text equals the tokenizer's decoding of all tokens, U+FFFD for invalid bytes
    included.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        piece: Callable[[int], str | None],
        stops: StopFinder | None = None,
    ) -> None:
        """`piece`: the text that a token always contributes; "" if it is special, None if neighbours decide it."""
        self._backend = backend
        self._piece = piece
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._undecoded: list[int] = []
        self._stops = stops
        self._parts: list[str] = []

    @property
    def matched(self) -> str | None:
        """The stop sequence that ended the text."""
        return None if self._stops is None else self._stops.matched

    @property
    def text(self) -> str:
        """All text returned so far."""
        return "".join(self._parts)

    def push(self, token_id: int) -> str:
        """The new text; empty if the token is special, leaves a character incomplete, or may begin a hidden stop."""
        piece = self._piece(token_id)
        if piece is not None and not (piece and self._undecoded):
            if self._stops is not None:
                return self._append(piece or self._stops.marks.get(token_id, ""))
            self._parts.append(piece)
            return piece
        delta = self._step(token_id)
        return self._append(self._cut() if len(self._undecoded) > MAX_UNDECODED_TOKENS else delta)

    def flush(self) -> str:
        """The rest of the text, when the sequence has ended; an incomplete character becomes U+FFFD."""
        undecoded, self._undecoded = self._undecoded, []
        self._decoder = DecodeStream(skip_special_tokens=True)
        delta = self._append(self._decode(undecoded)) if undecoded else ""
        return delta if self._stops is None else delta + self._emit(self._stops.flush())

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
        return self._emit(delta if self._stops is None else self._stops.push(delta))

    def _emit(self, text: str) -> str:
        if text:
            self._parts.append(text)
        return text
