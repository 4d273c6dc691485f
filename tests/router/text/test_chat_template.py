"""Which template a model has, and what becomes of one that misbehaves."""

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from fakes import make_tokenizer, train_backend
from peregrine_router.launch.model_files import DEMO_MODEL_ID, demo_path
from peregrine_router.text import template_process
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.template_process import TemplateError
from peregrine_router.text.tokenizer import Tokenizer

USER = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def chatting(template: str | None) -> AsyncIterator[Chat]:
    chat = Chat(make_tokenizer(), template, {})
    yield chat
    await chat.close()


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
        (
            "tiiuae/Falcon3-7B-Instruct",
            "<|system|>\nS\n<|user|>\nhi\n<|assistant|>\na\n<|user|>\nb\n<|assistant|>\n",
            (),
        ),
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
    """A base model is not guessed at."""
    with pytest.raises(TemplateError, match="no chat template"):
        await load(tmp_path, "tiiuae/falcon-7b").render(USER, None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", "no"),
        ("{% if", "unexpected|expected"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ messages.x.y }}", "undefined|no attribute"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than"),
        ("{{ 'a' * 9999999999 }}", "memory"),
    ],
    ids=["raises", "syntax", "escape", "mutation", "undefined", "long", "memory"],
)
async def test_bad_templates(template: str, message: str) -> None:
    """A template's fault is a TemplateError that says which, and the next request is served."""
    async with chatting(template) as chat:
        for _ in range(2):
            with pytest.raises(TemplateError, match=message):
                await text(chat)


async def test_endless_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that loops for ever is stopped in time, and does not hold up the next."""
    monkeypatch.setattr(template_process, "RENDER_SECONDS", 0.5)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = "{% if messages[0].content == 'loop' %}" + loop + "{% endif %}ok"
    async with chatting(template) as chat:
        started = time.monotonic()
        with pytest.raises(TemplateError, match="too long"):
            await text(chat, [{"role": "user", "content": "loop"}])
        assert time.monotonic() - started < 10
        assert await text(chat) == "ok"


async def test_killed_process_is_replaced() -> None:
    """If the process dies, one request fails and the next has a new one."""
    async with chatting("{{ messages[0].content }}") as chat:
        assert await text(chat) == "hi"
        assert chat._process is not None
        process = chat._process._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        with pytest.raises(TemplateError, match="rendering failed"):
            await text(chat)
        assert await text(chat) == "hi"


async def test_several_special_tokens() -> None:
    """Each of the template's own special tokens is one token, longest first; those in messages are text."""
    backend = train_backend()
    backend.add_special_tokens([AddedToken(each, special=True) for each in ("<|u|>", "<|u|>>", ">>Q<<")])
    tokenizer = Tokenizer(backend, frozenset({0}))
    chat = Chat(tokenizer, "<|u|>>{{ messages[0].content }}{{ messages[1].content }}>>Q<<<|u|>", {})
    ids = {name: tokenizer.special_tokens[name] for name in ("<|u|>", "<|u|>>", ">>Q<<")}
    for contents in (("a", "b"), ("<|u|>", ">>Q<<"), ("<|u", "|>"), (">>Q", "<<"), (">", "<"), ("\ufdd0", "<|u|>>")):
        prompt = await chat.render([{"role": "user", "content": each} for each in contents], None)
        encoded = chat.encode(prompt)
        assert [id for id in encoded if id in ids.values()] == [ids["<|u|>>"], ids[">>Q<<"], ids["<|u|>"]], contents
        assert prompt.plain == f"<|u|>>{''.join(contents)}>>Q<<<|u|>"
    await chat.close()
