"""Tokenizers out of GGUF files: the tokens of the original ones."""

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from fakes import EOS, falcon_pre_tokenizer, train_backend
from gguf_checkpoints import write_gguf
from peregrine_router.text.gguf_tokenizer import NORMAL, UNUSED, tokenizer_config, tokenizer_json
from peregrine_router.text.tokenizer_files import TokenizerError
from peregrine_server.models.loading.gguf_header import read_header

TEXTS = (
    "the quick falcon dives; it dives again",
    "in 2023 and 1234567, 12 or 1",
    "don't   stop\n\n\tat 3.14159!!! ...",
    "x² м 鳥 ½6789 ٣٤٥ 😀",
    f"{EOS}again{EOS} <|user|> the end>>INTRODUCTION<<",
    " leading and trailing ",
    "",
)


def original() -> tokenizers.Tokenizer:
    """Byte-level BPE with the steps of falcon-7b's tokenizer.json, special tokens and one that is not."""
    backend = train_backend()
    backend.pre_tokenizer = falcon_pre_tokenizer()
    backend.add_special_tokens([AddedToken(">>INTRODUCTION<<", special=True, normalized=False)])
    backend.add_tokens([AddedToken("<|user|>", normalized=False)])
    return backend


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("gguf") / "falcon.gguf"
    template = {"tokenizer.chat_template": "{{ messages[0].content }}"}
    write_gguf(file, tokenizer=original(), eos_token_id=0, metadata=template)
    return dict(read_header(file).metadata)


def rebuilt(metadata: dict[str, Any]) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(metadata)))


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_the_originals(text: str, metadata: dict[str, Any]) -> None:
    """Ids, places in the text, and the text that they decode to."""
    ours, theirs = rebuilt(metadata).encode(text), original().encode(text)
    assert (ours.ids, ours.offsets) == (theirs.ids, theirs.offsets)
    for skips in True, False:
        decoded = rebuilt(metadata).decode(ours.ids, skip_special_tokens=skips)
        assert decoded == original().decode(theirs.ids, skip_special_tokens=skips)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*TEXTS, "123", " 1", "'ll", EOS, "<|"]))))
def test_tokens_of_any_text(metadata: dict[str, Any], parts: list[str]) -> None:
    """Whatever it is made of."""
    text = "".join(parts)
    assert rebuilt(metadata).encode(text).ids == original().encode(text).ids


def test_files_of_2023_call_special_tokens_normal(metadata: dict[str, Any]) -> None:
    """Tokens that no merge makes are found all the same; all of them are special."""
    old = {name: value for name, value in metadata.items() if name != "tokenizer.ggml.pre"}
    old["tokenizer.ggml.token_type"] = (NORMAL,) * len(old["tokenizer.ggml.tokens"])
    found = rebuilt(old).get_added_tokens_decoder()
    assert {token.content for token in found.values()} == {EOS, ">>INTRODUCTION<<", "<|user|>"}
    assert rebuilt(old).encode(TEXTS[4]).ids == original().encode(TEXTS[4]).ids


def test_padding_of_the_vocabulary_is_no_token(metadata: dict[str, Any]) -> None:
    """The converter fills it up to the table's rows."""
    key, types = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
    padded = {**metadata, key: (*metadata[key], "[PAD322]"), types: (*metadata[types], UNUSED)}
    assert rebuilt(padded).get_vocab_size() == original().get_vocab_size()


def test_the_end_and_the_template_are_told(metadata: dict[str, Any]) -> None:
    """In the words of tokenizer_config.json."""
    assert tokenizer_config(metadata) == {"eos_token": EOS, "chat_template": "{{ messages[0].content }}"}
    assert tokenizer_config({**metadata, "tokenizer.ggml.eos_token_id": 10**6}).keys() == {"chat_template"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "the tokenizer of kind 'llama', 'falcon' is not read"),
        ({"pre": "qwen2"}, "the tokenizer of kind 'gpt2', 'qwen2' is not read"),
        ({"add_bos_token": True}, "a tokenizer that adds tokens to a prompt is not read"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"token_type": (1, 1)}, "its tokens and their types do not fit each other"),
        ({"merges": ("a zebra",)}, "its merges make tokens that it does not have"),
        ({"merges": ("a b c",)}, "its merges make tokens that it does not have"),
    ],
)
def test_what_is_not_told_in_full_is_refused(
    changes: dict[str, object], message: str, metadata: dict[str, Any]
) -> None:
    """In one line that says which file to put beside it."""
    changed = {**metadata, **{f"tokenizer.ggml.{name}": value for name, value in changes.items()}}
    with pytest.raises(TokenizerError) as caught:
        tokenizer_json(changed)
    assert str(caught.value) == f"{message}; put the tokenizer.json of the original model beside the GGUF file"


def test_tokens_that_are_there_twice_are_refused(metadata: dict[str, Any]) -> None:
    """One of two ids for a text would never be found."""
    tokens = metadata["tokenizer.ggml.tokens"]
    with pytest.raises(TokenizerError, match="do not fit each other"):
        tokenizer_json({**metadata, "tokenizer.ggml.tokens": (*tokens[:-1], tokens[0])})
