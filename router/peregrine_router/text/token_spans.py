"""Where the tokens of a text stand in it, in 12 bytes a token: as Python's objects they would take 300."""

from array import array
from collections.abc import Iterator, Sequence


class TokenSpans:
    """The spans of all tokens of a text, in its order."""

    def __init__(self) -> None:
        self.ids, self._starts, self._stops = array("I"), array("I"), array("I")

    def append(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], shift: int = 0) -> None:
        """Adds tokens with their (start, stop) from `shift` on."""
        self.ids.extend(ids)
        self._starts.extend([shift + start for start, _ in offsets])
        self._stops.extend([shift + stop for _, stop in offsets])

    def extend(self, spans: "TokenSpans", shift: int) -> None:
        """Adds the tokens of a text that begins at `shift`."""
        self.ids.extend(spans.ids)
        self._starts.extend(shift + start for start in spans._starts)
        self._stops.extend(shift + stop for stop in spans._stops)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(id, start, stop) of each token, which stands for `text[start:stop]`."""
        return zip(self.ids, self._starts, self._stops, strict=True)

    def in_bytes(self, text: str) -> Iterator[tuple[int, str, int, int]]:
        """(id, text, start, stop) of each token, start and stop in bytes of UTF-8. Tokens that split a character all
        have that character as their text."""
        at_character, at_byte = 0, 0
        for id, start, stop in self:
            at_byte += len(text[at_character:start].encode()) - len(text[start:at_character].encode())
            at_character, piece = start, text[start:stop]
            yield id, piece, at_byte, at_byte + len(piece.encode())
