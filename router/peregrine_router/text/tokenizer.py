"""Encodes text to tokens and back, by the model's tokenizer.json and the `tokenizers` library."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.decoders import ByteLevel

from peregrine_router.request import Token
from peregrine_router.text.detokenizer import TextStream
from peregrine_router.text.piecewise import PIECE_CHARACTERS, PiecewiseEncoder
from peregrine_router.text.stop_finder import StopFinder
from peregrine_router.text.token_spans import TokenSpans
from peregrine_router.text.tokenizer_files import (
    TokenizerError,
    add_declared_tokens,
    eos_token_ids,
    read_json,
    read_tokenizer_config,
    token_text,
)

_LOSSLESS = ("ByteLevel", "Digits", "Punctuation", "Split")
"""Pre-tokenizers that leave all text to the tokens."""
REPLACEMENT = "\ufffd"
"""Decoded in place of bytes that are no character."""


class _Texts(dict[int, str]):
    """Cache: token id -> its text when decoded alone. Ten times as fast as decoding; bounded by the vocabulary."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def __missing__(self, token_id: int) -> str:
        text = self._backend.decode([token_id], skip_special_tokens=False)
        if self._backend.id_to_token(token_id) is not None:
            self[token_id] = text
        return text


class _Pieces(dict[int, str | None]):
    """Cache: token id -> the text that it always contributes, or None if that depends on neighbouring tokens.

    Bounded by the vocabulary, like `_Texts`.
    """

    def __init__(self, texts: _Texts, special_ids: frozenset[int], is_bytes: bool) -> None:
        self._texts = texts
        self._special_ids = special_ids
        self._is_bytes = is_bytes

    def __missing__(self, token_id: int) -> str | None:
        piece: str | None = None
        if token_id in self._special_ids:
            piece = ""
        # Byte-level decoding joins bytes: a token of whole characters contributes exactly these.
        elif self._is_bytes and (text := self._texts[token_id]) and REPLACEMENT not in text:
            piece = text
        if token_id in self._texts or piece == "":
            self[token_id] = piece
        return piece


class Tokenizer:
    """The model's tokenizer. Immutable after loading; `encode` may be called from any thread."""

    def __init__(
        self, backend: tokenizers.Tokenizer, eos_token_ids: frozenset[int], config: dict[str, Any] | None = None
    ) -> None:
        """`config`: the content of tokenizer_config.json."""
        # tokenizer.json may contain the truncation and padding used in training.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._plain = _without_special_tokens(backend)
        self._piecewise = PiecewiseEncoder(self._plain)
        self._piecewise_special = PiecewiseEncoder(backend)
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in added.items() if token.special)
        self._bytes = _byte_alphabet(backend)
        self._texts = _Texts(backend)
        self._pieces = _Pieces(self._texts, self.special_ids, is_bytes=bool(self._bytes))
        self.special_tokens = {added[id].content: id for id in self.special_ids}
        """Text -> id of the tokens that generated text leaves out."""
        self.eos_token_ids = eos_token_ids
        """Tokens that end a sequence."""
        self.config = config or {}
        named = (token_text(self.config.get(name)) for name in ("bos_token", "eos_token"))
        self._document_starts = tuple(text for text in named if text in self.special_tokens)
        self._max_token_bytes = _max_token_bytes(backend) if self._bytes else None

    @classmethod
    def load(cls, path: Path, vocab_size: int | None = None) -> "Tokenizer":
        """Reads the folder of a model with embeddings for ids below `vocab_size`. Raises TokenizerError."""
        file = path / "tokenizer.json"
        if not file.is_file():
            raise TokenizerError(f"{file} is missing: save the model's fast tokenizer there")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # The library raises bare Exception.
            raise TokenizerError(f"{file} cannot be read ({error}): download it again") from None
        config = read_tokenizer_config(path)
        add_declared_tokens(backend, config)
        ends = eos_token_ids(path, backend, config, vocab_size)
        return cls(backend, ends, read_json(path / "tokenizer_config.json"))

    def encode(self, text: str, *, add_special_tokens: bool = True, has_special_tokens: bool = False) -> list[int]:
        """Token ids of `text`. The text of a special token is plain text unless `has_special_tokens`."""
        if len(text) > PIECE_CHARACTERS:
            piecewise = self._piecewise_special if has_special_tokens else self._piecewise
            return piecewise.encode(text, add_special_tokens=add_special_tokens).ids.tolist()
        backend = self._backend if has_special_tokens else self._plain
        # `encode` holds the GIL throughout and would block the event loop; the batch form releases it.
        return backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a raw prompt: text, but for the token that begins a document, at its start (decision 21)."""
        start = self._document_start(text)
        if not start:
            return self.encode(text)
        rest = self.encode(text[len(start) :], add_special_tokens=False)
        return [*self.encode(""), self.special_tokens[start], *rest]

    def prompt_spans(self, text: str) -> TokenSpans:
        """The tokens of `encode_prompt`, as `encode_spans` has them."""
        start = self._document_start(text)
        if not start:
            return self.encode_spans(text)
        spans = self.encode_spans("")
        spans.append([self.special_tokens[start]], [(0, len(start))])
        spans.extend(self.encode_spans(text[len(start) :], add_special_tokens=False), len(start))
        return spans

    def encode_spans(self, text: str, *, add_special_tokens: bool = True) -> TokenSpans:
        """The tokens of `text`, all of it plain text, and where they stand in it, in characters."""
        return self._piecewise.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`, without special tokens by default."""
        # As in `encode`: `decode` holds the GIL throughout, 0.4 s for a body full of ids.
        return self._backend.decode_batch([ids], skip_special_tokens=skip_special_tokens)[0]

    def min_tokens(self, text: str) -> int:
        """A lower bound on the tokens of `text`, in microseconds; 0 for tokenizers that may drop text."""
        return 0 if self._max_token_bytes is None else -(-len(text.encode()) // self._max_token_bytes)

    def describe(self, token_id: int, logprob: float | None = None) -> Token:
        """One token by itself, special tokens included. Part of a character becomes U+FFFD."""
        return Token(token_id, self._texts[token_id], logprob, token_id in self.special_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes of a token, possibly part of a character."""
        token = self._backend.id_to_token(token_id) or ""
        if token_id not in self.special_ids and self._bytes and all(character in self._bytes for character in token):
            return bytes(self._bytes[character] for character in token)
        return self._texts[token_id].encode()

    def stream(
        self, stop: tuple[str, ...] = (), hides_stop: bool = False, speaker_labels: tuple[str, ...] = ()
    ) -> TextStream:
        """An incremental detokenizer for one sequence."""
        has_stops = bool(stop or speaker_labels)
        stops = StopFinder(stop, hides_stop, speaker_labels, self.special_tokens) if has_stops else None
        return TextStream(self._backend, self._pieces.__getitem__, stops)

    def _document_start(self, text: str) -> str:
        return next((start for start in self._document_starts if text.startswith(start)), "")


def _without_special_tokens(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that encodes the text of special tokens as ordinary characters."""
    plain = tokenizers.Tokenizer.from_str(backend.to_str())
    plain.encode_special_tokens = True
    return plain


def _max_token_bytes(backend: tokenizers.Tokenizer) -> int | None:
    """Most bytes of text that one token stands for; None if there is no bound: normalizers shorten text, pre-tokenizers
    drop white space, and added tokens swallow as much as is beside them."""
    steps = json.loads(backend.to_str())["pre_tokenizer"] or {"type": "Sequence", "pretokenizers": []}
    pre_tokenizers = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    drops_text = any(step["type"] not in _LOSSLESS or step.get("behavior") == "Removed" for step in pre_tokenizers)
    added = backend.get_added_tokens_decoder().values()
    if backend.normalizer is not None or drops_text or any(token.lstrip or token.rstrip for token in added):
        return None
    # A byte-level token's text has a character for each byte; an added token's text is what it stands for.
    longest = max(map(len, backend.get_vocab(with_added_tokens=False)), default=1)
    return max([longest, *(len(token.content.encode()) for token in added)])


def _byte_alphabet(backend: tokenizers.Tokenizer) -> dict[str, int]:
    """Character -> byte of byte-level BPE, which writes printable bytes as themselves and the others, in order, from
    U+0100 (GPT-2's bytes_to_unicode). Empty for other tokenizers."""
    if not isinstance(backend.decoder, ByteLevel):
        return {}
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
