"""Long JSON in pieces: the tokenizer's answers are made while they are read, and never are in memory as a whole."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from peregrine_router.api.tgi.schemas import SimpleToken
from peregrine_router.text.token_spans import TokenSpans
from peregrine_router.text.tokenizer import Tokenizer

PIECE_TOKENS = 256
"""Tokens in a piece: 0.2 ms on the event loop."""
PIECE_CHARACTERS = 2**15


def json_list(items: Iterable[object]) -> Iterator[bytes]:
    """The JSON of a list."""
    items, separator = iter(items), b"["
    while piece := list(islice(items, PIECE_TOKENS)):
        yield separator + msgspec.json.encode(piece)[1:-1]
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def json_text(text: str) -> Iterator[bytes]:
    """The JSON of a string."""
    yield b'"'
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield msgspec.json.encode(text[start : start + PIECE_CHARACTERS])[1:-1]
    yield b'"'


def json_object(**members: Iterable[bytes]) -> Iterator[bytes]:
    """The JSON of an object whose members' values are JSON."""
    for number, (name, value) in enumerate(members.items()):
        yield b"%s%s:" % (b"," if number else b"{", msgspec.json.encode(name))
        yield from value
    yield b"}"


def span_list(text: str, spans: TokenSpans) -> Iterator[bytes]:
    """TGI's tokens of a text."""
    tokens: Iterator[SimpleToken] = (
        {"id": id, "text": piece, "start": start, "stop": stop} for id, piece, start, stop in spans.in_bytes(text)
    )
    return json_list(tokens)


def token_count(ids: Sequence[int], max_model_len: int, tokenizer: Tokenizer | None) -> Iterator[bytes]:
    """vLLM's answer of token ids, with their texts if the tokenizer is given."""
    members: dict[str, Iterable[bytes]] = {
        "count": [b"%d" % len(ids)],
        "max_model_len": [b"%d" % max_model_len],
        "tokens": json_list(ids),
    }
    if tokenizer is not None:
        members["token_strs"] = json_list(tokenizer.describe(id).text for id in ids)
    return json_object(**members)
