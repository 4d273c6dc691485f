"""Text to tokens, and tokens to text as they come. The model's own tokenizer.json by the `tokenizers` library."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.decoders import DecodeStream

from peregrine_router.request import Token

MAX_HELD_TOKENS = 32
"""Tokens of undecided text after which `TextStream` looks for a place to cut. Without that, a model stuck in invalid
bytes costs quadratic time: DecodeStream decodes all that it holds at each step (4096 such tokens: 2 s on one core)."""
MAX_CHARACTER_TAIL = 4
"""An incomplete UTF-8 character has at most 3 bytes, and a token at least one: a cut is found this near the end."""


class TokenizerError(ValueError):
    """The tokenizer's files are missing or unreadable; the message is one line for the operator."""


class Tokenizer:
    """Immutable after loading; `encode` may be called from any thread."""

    def __init__(self, backend: tokenizers.Tokenizer, eos_token_ids: frozenset[int]) -> None:
        # tokenizer.json may carry the truncation and padding of someone's training.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special_ids = frozenset(id for id, token in backend.get_added_tokens_decoder().items() if token.special)
        self.eos_token_ids = eos_token_ids
        """Tokens that end a generation."""

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """From a model's folder. Raises TokenizerError."""
        file = path / "tokenizer.json"
        if not file.is_file():
            raise TokenizerError(f"{file} is missing: save the model's fast tokenizer there")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # The library raises bare Exception.
            raise TokenizerError(f"{file} cannot be read ({error}): download it again") from None
        return cls(backend, _eos_token_ids(path, backend))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`."""
        # `encode` keeps the interpreter's lock throughout and would stop the event loop; the batch form releases it.
        return self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens hidden."""
        return self._backend.decode(ids, skip_special_tokens=True)

    def describe(self, token_id: int, logprob: float | None = None) -> Token:
        """One token by itself, special tokens shown. Part of a character reads as U+FFFD."""
        text = self._backend.decode([token_id], skip_special_tokens=False)
        return Token(token_id, text, logprob, token_id in self._special_ids)

    def is_special(self, token_id: int) -> bool:
        """Whether generated text hides the token."""
        return token_id in self._special_ids

    def stream(self, stop: tuple[str, ...] = ()) -> "TextStream":
        """Decodes one generation token by token."""
        return TextStream(self, self._backend, stop)


class TextStream:
    """The text of one generation as its tokens come. All that was returned, joined, is `text`.

    Until a stop sequence matches that equals the tokenizer's decoding of all tokens, U+FFFD for invalid bytes included.
    """

    def __init__(self, tokenizer: Tokenizer, backend: tokenizers.Tokenizer, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._backend = backend
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []
        self._stop = stop
        self._longest_stop = max(map(len, stop), default=0)
        self._parts: list[str] = []
        self._tail = ""
        self.matched: str | None = None
        """The stop sequence that ended the text."""

    @property
    def text(self) -> str:
        """Everything so far; a matched stop sequence is its end."""
        return "".join(self._parts)

    def push(self, token_id: int) -> str:
        """What the token adds: nothing if it is special, or leaves a character incomplete."""
        if self._tokenizer.is_special(token_id):
            return ""
        delta = self._step(token_id)
        return self._append(self._cut() if len(self._held) > MAX_HELD_TOKENS else delta)

    def flush(self) -> str:
        """What is still held when the generation ends: an incomplete character reads as U+FFFD."""
        held, self._held = self._held, []
        self._decoder = DecodeStream(skip_special_tokens=True)
        return self._append(self._tokenizer.decode(held)) if held else ""

    def _step(self, token_id: int) -> str:
        self._held.append(token_id)
        delta = self._decoder.step(self._backend, token_id)
        if delta is None:
            return ""
        self._held.clear()
        return delta

    def _cut(self) -> str:
        """Gives out held text up to a character boundary: decoded apart, the halves are then what they are together."""
        held, decode = self._held, self._tokenizer.decode
        whole = decode(held)
        for at in range(len(held) - 1, len(held) - 1 - MAX_CHARACTER_TAIL, -1):
            head, tail = decode(held[:at]), decode(held[at:])
            if head + tail == whole:
                self._held, self._decoder = [], DecodeStream(skip_special_tokens=True)
                return head + "".join(map(self._step, held[at:]))
        return ""

    def _append(self, delta: str) -> str:
        """Adds to the text, up to and with the first stop sequence."""
        if self.matched is not None or not delta:
            return ""
        window = self._tail + delta
        ends = [(at + len(stop), stop) for stop in self._stop if (at := window.find(stop)) >= 0]
        if ends:
            end, self.matched = min(ends, key=lambda found: found[0])
            delta = delta[: end - len(self._tail)]
        self._parts.append(delta)
        self._tail = window[-(self._longest_stop - 1) :] if self._longest_stop > 1 else ""
        return delta


def _eos_token_ids(path: Path, backend: tokenizers.Tokenizer) -> frozenset[int]:
    """What the model's files say ends a text.

    Files of falcon-rw name id 2, an ordinary word of its vocabulary, next to the tokenizer's true end of text 50256.
    So ids that were merely copied from config.json count only if they are no ordinary word, where the tokenizer has an
    end of text of its own. A generation_config.json that somebody wrote by hand is taken at its word.
    """
    generation, own = _read(path / "generation_config.json"), _own_eos(path, backend)
    declared = _ids(generation.get("eos_token_id"))
    if not declared or generation.get("_from_model_config"):
        declared = declared or _ids(_read(path / "config.json").get("eos_token_id"))
        if own:
            declared &= frozenset(backend.get_added_tokens_decoder())
    return declared | own


def _own_eos(path: Path, backend: tokenizers.Tokenizer) -> frozenset[int]:
    token = _read(path / "tokenizer_config.json").get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    token_id = backend.token_to_id(token) if isinstance(token, str) else None
    return frozenset() if token_id is None else frozenset({token_id})


def _ids(value: Any) -> frozenset[int]:
    values = value if isinstance(value, list) else [value]
    return frozenset(id for id in values if isinstance(id, int))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TokenizerError(f"{file} is not valid JSON ({error}): download it again") from None
    return content if isinstance(content, dict) else {}
