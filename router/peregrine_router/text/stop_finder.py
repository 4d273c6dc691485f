"""Finds stop sequences in text that comes in pieces, special tokens that the text leaves out among them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

_FIRST_MARK = 0xD800
_MAX_MARKS = 0x800
"""Marks of special tokens are lone surrogates, which no decoded text contains."""


class StopFinder:
    """Ends a text at its first stop sequence. After `flush`, the pieces that it returned are the text.

    With `hides_stop` the text ends before the stop sequence, so a suffix that may become one is returned only when it
    is decided; without, the text ends behind it.
    """

    def __init__(
        self,
        stop: Sequence[str],
        hides_stop: bool = False,
        speaker_labels: Sequence[str] = (),
        special_tokens: Mapping[str, int] | None = None,
    ) -> None:
        """`speaker_labels`: they stop a text where a colon follows, and, with `hides_stop`, at its end.

        `special_tokens`: text -> id. In a stop sequence such a text stands for the token as well as for itself.
        """
        self._hides_stop = hides_stop
        self._labels = tuple(speaker_labels)
        self._stop = {text: text for text in (*stop, *(f"{label}:" for label in speaker_labels))}
        """Text to look for, with marks in it -> stop sequence."""
        self.marks = self._mark(special_tokens or {})
        """Token id -> what to `push` for a special token, which adds nothing to the text."""
        self._unmarked = {ord(mark): None for mark in self.marks.values()}
        self._overlaps = dict.fromkeys(self._stop, 0)
        """Text to look for -> length of its longest beginning with which the text so far ends."""
        self._window = ""
        self._num_shown = 0
        self.matched: str | None = None
        """The stop sequence that ended the text."""

    def push(self, delta: str) -> str:
        """The part of the text that `delta` decides, up to the first complete stop sequence; of two, the longer."""
        if self.matched is not None or not delta:
            return ""
        window = self._window + delta
        found = [(at + len(text), at, stop) for text, stop in self._stop.items() if (at := window.find(text)) >= 0]
        if found:
            end, start, self.matched = min(found)
            self._window, shown = "", self._num_shown
            return self._text(window[shown : start if self._hides_stop else end])
        return self._decided(window, delta)

    def flush(self) -> str:
        """The rest of the text, when the sequence has ended."""
        rest, self._window = self._window, ""
        end = len(rest) - (max((_label_length(rest, label) for label in self._labels), default=0))
        return self._text(rest[self._num_shown : end])

    def _decided(self, window: str, delta: str) -> str:
        """The part of `window` not yet returned, without a suffix that may begin a hidden stop sequence; it ends with
        `delta`."""
        for text, overlap in self._overlaps.items():
            self._overlaps[text] = _overlap(text, overlap, delta)
        undecided = max(self._overlaps.values())
        undecided = max(undecided, *(_label_length(window, label) for label in self._labels), 0)
        at, shown = len(window) - undecided, self._num_shown
        self._window = window[at:]
        self._num_shown = 0 if self._hides_stop else undecided
        return self._text(window[shown : at if self._hides_stop else len(window)])

    def _text(self, marked: str) -> str:
        return marked.translate(self._unmarked) if self._unmarked else marked

    def _mark(self, special_tokens: Mapping[str, int]) -> dict[int, str]:
        """The marks of the tokens that stop sequences name; these are looked for with marks in them, too."""
        named = [text for text in special_tokens if text and any(text in stop for stop in self._stop)]
        # The longest first: one token's text may contain another's.
        marks = {text: chr(_FIRST_MARK + n) for n, text in enumerate(sorted(named, key=len)[::-1][:_MAX_MARKS])}
        for stop in list(self._stop):
            marked = stop
            for text, mark in marks.items():
                marked = marked.replace(text, mark)
            self._stop[marked] = stop
        return {special_tokens[text]: mark for text, mark in marks.items()}


def _overlap(stop: str, overlap: int, delta: str) -> int:
    """Length of the longest suffix of a text that is a proper prefix of `stop`; before `delta` came it was `overlap`.

    Knuth, Morris and Pratt's search: linear in `delta`, whatever the stop sequence.
    """
    if not overlap and stop[0] not in delta:
        return 0
    borders = _borders(stop)
    for character in delta:
        while overlap and stop[overlap] != character:
            overlap = borders[overlap - 1]
        overlap += stop[overlap] == character
    return overlap


@lru_cache(256)
def _borders(stop: str) -> tuple[int, ...]:
    """For each prefix, the length of its longest proper prefix that is its suffix too."""
    borders = [0]
    for character in stop[1:]:
        length = borders[-1]
        while length and stop[length] != character:
            length = borders[length - 1]
        borders.append(length + (stop[length] == character))
    return tuple(borders)


def _label_length(text: str, label: str) -> int:
    """Length of the suffix of `text` that is the label and white space; 0 if it does not end so."""
    stripped = text.rstrip()
    return len(text) - len(stripped) + len(label) if stripped.endswith(label) else 0
