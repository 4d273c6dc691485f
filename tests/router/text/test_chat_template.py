"""Which template a model has, and what it renders."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fakes import make_tokenizer
from peregrine_router.launch.model_files import DEMO_MODEL_ID, demo_path
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.template_process import TemplateError
from peregrine_router.text.tokenizer import Tokenizer

USER = [{"role": "user", "content": "hi"}]


async def text(chat: Chat, messages: list[dict[str, Any]] = USER) -> str:
    return (await chat.render(messages, None)).plain


def load(path: Path, model_id: str = "x/y", config_path: str | None = None, **files: Any) -> Chat:
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return Chat.load(path, model_id, make_tokenizer(), config_path)


async def test_the_demo_model_chats_as_transformers_renders() -> None:
    """Its own template gives the text and the tokens that transformers makes of it."""
    messages = [*USER, {"role": "assistant", "content": "yes"}, {"role": "user", "content": " no 😀"}]
    oracle = AutoTokenizer.from_pretrained(demo_path())
    chat = Chat.load(demo_path(), DEMO_MODEL_ID, Tokenizer.load(demo_path()))
    prompt = await chat.render(messages, None)
    await chat.close()
    assert prompt.plain == oracle.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    want = oracle.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(chat.encode(prompt)) == want
    assert [id for id, _, _ in chat.spans(prompt)] == want


@pytest.mark.parametrize(
    ("model_id", "expected", "stop"),
    [
        ("tiiuae/falcon-7b-instruct", "S\nUser: hi\nAssistant: a\nUser: b\nAssistant:", ("\nUser",)),
        ("/models/falcon-40b-instruct/", "S\nUser: hi\nAssistant: a\nUser: b\nAssistant:", ("\nUser",)),
        ("tiiuae/falcon-180B-chat", "System: S\nUser: hi\nFalcon: a\nUser: b\nFalcon:", ("\nUser:",)),
    ],
)
async def test_families(tmp_path: Path, model_id: str, expected: str, stop: tuple[str, ...]) -> None:
    """Without a template of its own, a model of a known family chats by its convention, and stops where it should."""
    chat = load(tmp_path, model_id)
    turns = [("system", "S"), ("user", "hi"), ("assistant", "a"), ("user", "b")]
    rendered = await text(chat, [{"role": role, "content": content} for role, content in turns])
    await chat.close()
    assert rendered == expected
    assert chat.stop == stop


async def test_files_in_order(tmp_path: Path) -> None:
    """--tokenizer-config-path wins over chat_template.jinja, .json, tokenizer_config.json, and that over the family."""
    config = {"chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "config"}]}
    seen = [load(tmp_path, "falcon-7b-instruct", tokenizer_config=config)]
    seen.append(load(tmp_path, chat_template={"chat_template": "json"}))
    (tmp_path / "chat_template.jinja").write_text("jinja")
    seen.append(load(tmp_path))
    (tmp_path / "other").write_text(json.dumps({"chat_template": "given"}))
    seen.append(load(tmp_path, config_path=str(tmp_path / "other")))
    assert [await text(chat) for chat in seen] == ["config", "json", "jinja", "given"]
    for chat in seen:
        await chat.close()


async def test_unknown_models_have_none(tmp_path: Path) -> None:
    """A base model has no convention."""
    with pytest.raises(TemplateError, match="no chat template"):
        await load(tmp_path, "tiiuae/falcon-7b").render(USER, None)
