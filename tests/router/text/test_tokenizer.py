"""Text to tokens and back, and what a tokenizer's files say."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import EOS, make_tokenizer, train_backend
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_router.text.tokenizer_files import TokenizerError

TOKENIZER = make_tokenizer()
IM_END = {"content": "<|im_end|>", "special": True}


def test_special_text_is_text_unless_told() -> None:
    """A prompt that reads like the end of text is characters; for a chat template it is the token."""
    assert TOKENIZER.decode(TOKENIZER.encode(EOS)) == EOS
    assert TOKENIZER.encode(EOS, has_special_tokens=True) == [0]


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_a_prompt_may_begin_with_the_token_that_begins_a_document(name: str) -> None:
    """At its start, the text of the model's own first or last token is that token, as evaluation harnesses write it."""
    tokenizer = Tokenizer(train_backend(), frozenset({0}), {name: EOS})
    assert tokenizer.encode_prompt(f"{EOS}the fox") == [0, *tokenizer.encode("the fox")]
    assert tokenizer.encode_prompt(EOS) == [0]
    assert tokenizer.encode_prompt(f"{EOS}{EOS}") == [0, *tokenizer.encode(EOS)]


def test_elsewhere_in_a_prompt_it_is_text() -> None:
    """So no text of a user ends what stands before it; and a special token that begins no document is text anywhere."""
    tokenizer = Tokenizer(train_backend(), frozenset({0}), {"eos_token": EOS})
    for text in (f"the{EOS}", f" {EOS}the", "the fox"):
        assert tokenizer.encode_prompt(text) == tokenizer.encode(text)
        assert 0 not in tokenizer.encode_prompt(text)
    assert 0 not in TOKENIZER.encode_prompt(EOS)


def test_spans_of_a_prompt() -> None:
    """Spans of a prompt are those of its tokens."""
    tokenizer = Tokenizer(train_backend(), frozenset({0}), {"eos_token": EOS})
    for text in (f"{EOS}the é fox", "the fox"):
        spans = list(tokenizer.prompt_spans(text))
        assert [id for id, _, _ in spans] == tokenizer.encode_prompt(text)
        assert "".join(text[start:stop] for _, start, stop in spans if text[start:stop].isascii()) == text.replace(
            "é", ""
        )


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_bytes_of_tokens(text: str) -> None:
    """The bytes of all tokens are the text's."""
    assert b"".join(map(TOKENIZER.token_bytes, TOKENIZER.encode(text))) == text.encode()


def test_spans() -> None:
    """Spans are where the tokens stand in the text."""
    text = "the é😀 fox"
    spans = list(TOKENIZER.encode_spans(text))
    assert [id for id, _, _ in spans] == TOKENIZER.encode(text)
    assert all(TOKENIZER.decode([id]) == text[start:stop] for id, start, stop in spans if text[start:stop].isascii())


def save(path: Path, **files: Any) -> Path:
    train_backend().save(str(path / "tokenizer.json"))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, set()),
        ({"config": {"eos_token_id": 0}}, {0}),
        ({"config": {"eos_token_id": 5}}, {5}),
        ({"tokenizer_config": {"eos_token": EOS}}, {0}),
        ({"tokenizer_config": {"eos_token": {"content": EOS}}}, {0}),
        ({"config": {"eos_token_id": 2}, "tokenizer_config": {"eos_token": EOS}}, {0}),
        (
            {
                "generation_config": {"eos_token_id": 2, "_from_model_config": True},
                "tokenizer_config": {"eos_token": EOS},
            },
            {0},
        ),
        ({"generation_config": {"eos_token_id": [0, 7]}, "config": {"eos_token_id": 3}}, {0, 7}),
        ({"generation_config": {"eos_token_id": [7]}, "tokenizer_config": {"eos_token": EOS}}, {0, 7}),
        ({"config": {"eos_token_id": None}}, set()),
        ({"config": {"eos_token_id": [-1, 7, "8", 9.0, True, None]}}, {7, 9}),
        ({"generation_config": {"eos_token_id": [0, 320]}}, {0}),
        ({"special_tokens_map": {"eos_token": {"content": EOS}}}, {0}),
        ({"tokenizer_config": {"eos_token": "fox"}, "special_tokens_map": {"eos_token": EOS}}, {0}),
        ({"tokenizer_config": {"eos_token": "<|im_end|>", "added_tokens_decoder": {"306": IM_END}}}, {306}),
        ({"tokenizer_config": {"eos_token": "<|im_end|>"}, "added_tokens": {"<|im_end|>": 306}}, {306}),
        ({"tokenizer_config": {"eos_token": "<|im_end|>"}}, set()),
    ],
)
def test_end_of_text(tmp_path: Path, files: dict[str, Any], expected: set[int]) -> None:
    """The files' ends of text are united, but for an ordinary word that config.json names (falcon-rw's id 2), and for
    what is no id of the vocabulary."""
    assert Tokenizer.load(save(tmp_path, **files), vocab_size=320).eos_token_ids == expected


def test_no_truncation_or_padding(tmp_path: Path) -> None:
    """Truncation and padding that a tokenizer.json brings along do not touch prompts."""
    backend = train_backend()
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.load(tmp_path).encode("xyzxyzxyz")) == 9


def test_missing_and_broken_files(tmp_path: Path) -> None:
    """A missing or broken file is one line that names it and says what to do."""
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing: save"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read .*: download"):
        Tokenizer.load(tmp_path)
    save(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"config\.json is not valid JSON .*: download"):
        Tokenizer.load(tmp_path)
