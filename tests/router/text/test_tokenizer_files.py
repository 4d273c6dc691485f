"""Tokens that are declared in other files than tokenizer.json, with transformers as the oracle."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from fakes import EOS, train_backend
from peregrine_router.text.tokenizer import Tokenizer

IM_END = {"content": "<|im_end|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
PLAIN = {**IM_END, "content": "falconry", "special": False}
NEXT_ID = str(train_backend().get_vocab_size())


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"added_tokens_decoder": {NEXT_ID: IM_END}}},
        {"tokenizer_config": {"added_tokens_decoder": {NEXT_ID: PLAIN, str(int(NEXT_ID) + 1): IM_END}}},
        {"tokenizer_config": {"eos_token": "<|im_end|>"}, "added_tokens": {"<|im_end|>": int(NEXT_ID)}},
        {"added_tokens": {"falconry": int(NEXT_ID)}, "tokenizer_config": {}},
        {"special_tokens_map": {"additional_special_tokens": ["the"]}, "tokenizer_config": {}},
        {"tokenizer_config": {"pad_token": "the"}},
    ],
)
def test_declared_tokens_are_those_of_transformers(files: dict[str, Any], tmp_path: Path) -> None:
    """Text with declared tokens is encoded as transformers encodes it, and decodes without the special ones."""
    train_backend().save(str(tmp_path / "tokenizer.json"))
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    text = f"the fox<|im_end|>dives falconry dive{EOS}"
    ids = ours.encode(text, has_special_tokens=True)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.special_ids == {id for id, token in theirs.added_tokens_decoder.items() if token.special}


@pytest.mark.parametrize("decoder", [{"x": IM_END, "7": "<|im_end|>", "8": {}, "9": {"content": 1}}, [], None])
def test_malformed_declarations_declare_nothing(decoder: Any, tmp_path: Path) -> None:
    """Entries of `added_tokens_decoder` that are no tokens are passed over."""
    train_backend().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder, "eos_token": EOS}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special_tokens == {EOS: 0}
    assert tokenizer.eos_token_ids == {0}


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({"model_type": "falcon"}, {11}),
        ({"model_type": "RefinedWebModel"}, {11}),
        ({"model_type": "falcon", "eos_token_id": None}, set()),
        ({"model_type": "falcon", "eos_token_id": 3}, {3}),
        ({"model_type": "toy"}, set()),
    ],
)
def test_a_falcons_default_end_of_text(config: dict[str, Any], want: set[int], tmp_path: Path) -> None:
    """Where config.json leaves `eos_token_id` out it is FalconConfig's 11; null is none, as in transformers."""
    train_backend().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path, 320).eos_token_ids == want
    assert Tokenizer.load(tmp_path, 11).eos_token_ids == want - {11}


def test_the_tokenizers_own_end_of_text_comes_first(tmp_path: Path) -> None:
    """Beside one that the tokenizer declares, the default is a word like any other."""
    train_backend().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "falcon"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    assert Tokenizer.load(tmp_path).eos_token_ids == {0}
