"""Chat templates and special tokens in a model's files, compared with transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from fakes import EOS, train_backend
from peregrine_router.text.template_files import declared_tokens, read_templates
from peregrine_router.text.tokenizer_files import read_tokenizer_config


def write(path: Path, **files: Any) -> dict[str, Any]:
    """Writes JSON files; returns tokenizer_config.json's content."""
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    config: dict[str, Any] = files.get("tokenizer_config", {})
    return config


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": EOS, "bos_token": "the", "my_token": "x"}},
        {"tokenizer_config": {"extra_special_tokens": {"image": "<i>"}, "add_bos_token": True}},
        {"tokenizer_config": {"eos_token": {"content": EOS, "__type": "AddedToken"}, "pad_token": None}},
        {"tokenizer_config": {}, "special_tokens_map": {"eos_token": EOS, "pad_token": {"content": EOS}}},
        {"tokenizer_config": {"eos_token": "fox"}, "special_tokens_map": {"eos_token": EOS}},
        {
            "tokenizer_config": {"eos_token": EOS, "added_tokens_decoder": {"0": {"content": EOS, "special": True}}},
            "special_tokens_map": {"eos_token": "fox", "bos_token": "fox"},
        },
    ],
    ids=["config", "extra", "objects", "map", "map-first", "decoder"],
)
def test_special_tokens_are_those_of_transformers(tmp_path: Path, files: dict[str, Any]) -> None:
    """A template knows the named tokens that transformers gives it, and no other."""
    write(tmp_path, **files)
    train_backend().save(str(tmp_path / "tokenizer.json"))
    oracle = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert declared_tokens(read_tokenizer_config(tmp_path)) == oracle.special_tokens_map


def test_templates_by_name(tmp_path: Path) -> None:
    """Templates have names in a list, and as files; files win, chat_template.json before tokenizer_config.json."""
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}, {"name": "bad"}, 1]
    config = write(tmp_path, tokenizer_config={"chat_template": named})
    assert read_templates(tmp_path, config) == {"default": "d", "tool_use": "t"}
    write(tmp_path, chat_template={"chat_template": "json"})
    assert read_templates(tmp_path, config) == {"default": "json"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools é", encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert read_templates(tmp_path, config) == {"default": "jinja", "tool_use": "tools é"}
