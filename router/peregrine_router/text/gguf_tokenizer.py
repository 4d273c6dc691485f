"""tokenizer.json and tokenizer_config.json from a GGUF file's `tokenizer.ggml.*`."""

from collections.abc import Mapping
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from peregrine_router.text.tokenizer_files import TokenizerError

_AT = "tokenizer.ggml."
NORMAL, UNUSED, USER_DEFINED = 1, 5, 4
"""Types of tokens (llama.h): CONTROL, UNKNOWN and BYTE are the others."""
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "falcon": [
        {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False},
    ]
}
"""The pre-tokenizer that `pre` names -> its steps, as tokenizer.json of falcon-7b, 40b and 180B has them."""
_REMEDY = "put the tokenizer.json of the original model beside the GGUF file"


def tokenizer_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of tokenizer.json. Raises TokenizerError, one line, if the file does not tell all of it."""
    model = metadata.get(f"{_AT}model")
    # Before April 2024 files did not name it; all of this architecture that exist have the same.
    steps = metadata.get(f"{_AT}pre", "falcon")
    if model is None:
        raise TokenizerError(f"it has no tokenizer; {_REMEDY}")
    if model != "gpt2" or steps not in PRE_TOKENIZERS:
        raise TokenizerError(f"the tokenizer of kind {model!r:.80}, {steps!r:.80} is not read; {_REMEDY}")
    if metadata.get(f"{_AT}add_bos_token") or metadata.get(f"{_AT}add_eos_token"):
        raise TokenizerError(f"a tokenizer that adds tokens to a prompt is not read; {_REMEDY}")
    tokens, merges = _texts(metadata, "tokens"), [merge.split(" ") for merge in _texts(metadata, "merges")]
    types = metadata.get(f"{_AT}token_type", (NORMAL,) * len(tokens))
    if not isinstance(types, tuple) or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise TokenizerError(f"its tokens and their types do not fit each other; {_REMEDY}")
    vocab = {token: id for id, token in enumerate(tokens) if types[id] != UNUSED}
    if not all(len(pair) == 2 and {*pair, "".join(pair)} <= vocab.keys() for pair in merges):
        raise TokenizerError(f"its merges make tokens that it does not have; {_REMEDY}")
    return {
        "version": "1.0",
        "added_tokens": _added_tokens(vocab, types, {"".join(pair) for pair in merges}),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[steps]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of tokenizer_config.json: the end of text, and the chat template if there is one."""
    tokens, end = metadata.get(f"{_AT}tokens"), metadata.get(f"{_AT}eos_token_id")
    config = {"chat_template": metadata.get("tokenizer.chat_template")}
    if isinstance(tokens, tuple) and isinstance(end, int) and 0 <= end < len(tokens):
        config["eos_token"] = tokens[end]
    return {key: value for key, value in config.items() if isinstance(value, str)}


def _texts(metadata: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = metadata.get(_AT + name)
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise TokenizerError(f"{_AT}{name} is missing; {_REMEDY}")
    return texts


def _added_tokens(vocab: Mapping[str, int], types: tuple[int, ...], merged: set[str]) -> list[dict[str, Any]]:
    """Tokens that no merge makes: text is searched for them first. Files of 2023 call all of them normal."""
    reached = merged | set(ByteLevel.alphabet())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": id, "content": token, **flags, "special": types[id] != USER_DEFINED}
        for token, id in vocab.items()
        if types[id] != NORMAL or token not in reached
    ]
