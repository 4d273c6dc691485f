"""Tokens that a model's files declare beside tokenizer.json: added ones, special ones, and the ends of text."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")

DEFAULT_EOS = dict.fromkeys(("falcon", "RefinedWeb", "RefinedWebModel"), 11)
"""`model_type` -> end of text where config.json has no `eos_token_id`: the default of transformers' FalconConfig."""


class TokenizerError(ValueError):
    """The tokenizer's files are missing or unreadable; the message is one line for the operator."""


def read_json(file: Path) -> dict[str, Any]:
    """Content of a JSON file of the model; empty if the file does not exist. Raises TokenizerError."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TokenizerError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{file} is not valid JSON ({error}): download it again") from None
    return content if isinstance(content, dict) else {}


def read_tokenizer_config(path: Path) -> dict[str, Any]:
    """Content of tokenizer_config.json, special_tokens_map.json and added_tokens.json, in the form of the first.

    As in transformers, the older two count only where tokenizer_config.json has no `added_tokens_decoder`.
    """
    config = read_json(path / "tokenizer_config.json")
    if isinstance(config.get("added_tokens_decoder"), dict):
        return config
    config |= read_json(path / "special_tokens_map.json")
    special = set(_special_texts(config))
    added = {
        str(id): {"content": text, "special": text in special, "normalized": text not in special}
        for text, id in read_json(path / "added_tokens.json").items()
    }
    return config | {"added_tokens_decoder": added}


def token_text(token: Any) -> str:
    """Text of a token that a file gives as a string or as an object; empty if it gives none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def add_declared_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Adds what `config`, of `read_tokenizer_config`, declares and tokenizer.json does not, as transformers does.

    A special token without an id in either is left out: the model cannot have learned it.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token in (*_added_tokens(config), *_special_tokens(backend, config)):
        if token.content not in known:
            known.add(token.content)
            backend.add_tokens([token])


def eos_token_ids(
    path: Path, backend: tokenizers.Tokenizer, config: Mapping[str, Any], vocab_size: int | None
) -> frozenset[int]:
    """Ids of the end-of-text tokens that the model's files declare, of those that the vocabulary has.

    falcon-rw's config.json declares id 2, an ordinary word of its vocabulary, beside the tokenizer's true end of text,
    50256. So if the tokenizer declares one, ids from config.json (or copied from there) count only if they are added
    tokens. Ids in a generation_config.json that was written by hand always count.
    """
    generation = read_json(path / "generation_config.json")
    own = _ids(backend.token_to_id(token_text(config.get("eos_token"))))
    declared = _ids(generation.get("eos_token_id"))
    if not declared or generation.get("_from_model_config"):
        model = read_json(path / "config.json")
        declared = declared or _ids(model.get("eos_token_id", DEFAULT_EOS.get(str(model.get("model_type")))))
        if own:
            declared &= frozenset(backend.get_added_tokens_decoder())
    return frozenset(id for id in declared | own if vocab_size is None or id < vocab_size)


def _ids(value: Any) -> frozenset[int]:
    """The token ids among an id, a list, or anything else that a file may hold: -1 and null mean none."""
    values = value if isinstance(value, list) else [value]
    return frozenset(
        int(id)
        for id in values
        if isinstance(id, int | float) and not isinstance(id, bool) and id >= 0 and float(id).is_integer()
    )


def _added_tokens(config: Mapping[str, Any]) -> Iterator[tokenizers.AddedToken]:
    entries = config["added_tokens_decoder"] if isinstance(config.get("added_tokens_decoder"), dict) else {}
    special = set(_special_texts(config))
    for _, entry in sorted(((id, entry) for id, entry in entries.items() if id.isdecimal()), key=lambda e: int(e[0])):
        if isinstance(entry, dict) and (text := token_text(entry)):
            flags = {name: entry[name] for name in _FLAGS if isinstance(entry.get(name), bool)}
            yield tokenizers.AddedToken(text, special=bool(entry.get("special")) or text in special, **flags)


def _special_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> Iterator[tokenizers.AddedToken]:
    for text in _special_texts(config):
        if backend.token_to_id(text) is not None:
            yield tokenizers.AddedToken(text, special=True, normalized=False)


def _special_texts(config: Mapping[str, Any]) -> Iterator[str]:
    named = [config.get(name) for name in _SPECIAL]
    for name in _MORE_SPECIAL:
        more = config.get(name)
        named += more if isinstance(more, list) else list(more.values()) if isinstance(more, dict) else []
    return filter(None, map(token_text, named))
