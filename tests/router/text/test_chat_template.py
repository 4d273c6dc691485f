"""Which template a model has, and what it renders."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from fakes import make_tokenizer
from peregrine_router.launch.model_files import DEMO_MODEL_ID, demo_path
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.template_process import TemplateError
from peregrine_router.text.tokenizer import Tokenizer

USER = [{"role": "user", "content": "hi"}]


async def text(chat: Chat, messages: list[dict[str, Any]] = USER) -> str:
    return (await chat.render(messages, None)).plain


async def continued(template: str, content: str, tools: list[dict[str, Any]] | None = None) -> str:
    """The prompt of a chat whose last message is the assistant's."""
    chat = Chat(make_tokenizer(), template, {})
    prompt = await chat.render([*USER, {"role": "assistant", "content": content}], tools)
    await chat.close()
    return prompt.plain


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
    assert [id for id, _, _, _ in chat.spans(prompt).in_bytes(prompt.plain)] == want


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("tiiuae/falcon-7b-instruct", "S\nUser: hi\nAssistant: a\nUser: b\nAssistant:"),
        ("/models/falcon-40b-instruct/", "S\nUser: hi\nAssistant: a\nUser: b\nAssistant:"),
        ("tiiuae/falcon-180B-chat", "System: S\nUser: hi\nFalcon: a\nUser: b\nFalcon:"),
    ],
)
async def test_families(tmp_path: Path, model_id: str, expected: str) -> None:
    """Without a template of its own, a model of a known family chats by its convention, and stops where it should."""
    chat = load(tmp_path, model_id)
    turns = [("system", "S"), ("user", "hi"), ("assistant", "a"), ("user", "b")]
    rendered = await text(chat, [{"role": role, "content": content} for role, content in turns])
    await chat.close()
    assert rendered == expected
    assert chat.speaker_labels == ("\nUser",)


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


TURNS = (
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}<|End|>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}A"
)


@pytest.mark.parametrize("content", ["A", "s", "<|End|>", ":", "ass  ", "a\n\n", "é 😀\t", "hi"])
async def test_the_last_message_is_continued(content: str) -> None:
    """The prompt ends with the assistant's last message as transformers' does, white space included, also if the
    template writes the same text elsewhere."""
    messages = [*USER, {"role": "assistant", "content": content}]
    oracle = render_jinja_template([messages], chat_template=TURNS, continue_final_message=True)[0][0]
    assert await continued(TURNS, content) == oracle == f"User: hi<|End|>\nAssistant: {content}"


@pytest.mark.parametrize("content", ["A", "Once upon a time ", "User"])
async def test_the_demo_continues(content: str) -> None:
    """A template that trims messages does not lose the white space between the message and its continuation."""
    chat = Chat.load(demo_path(), DEMO_MODEL_ID, Tokenizer.load(demo_path()))
    prompt = await chat.render([*USER, {"role": "assistant", "content": content}], None)
    await chat.close()
    assert prompt.plain == f"User: hi\nAssistant: {content}"


async def test_what_is_not_continued() -> None:
    """Behind an empty message of the assistant, or one that calls a tool, the prompt begins a new one."""
    for last in ({"content": ""}, {"content": " "}, {"content": "a", "tool_calls": [{"function": {"name": "f"}}]}):
        chat = Chat(make_tokenizer(), TURNS, {})
        assert (await text(chat, [*USER, {"role": "assistant", **last}])).endswith("Assistant:A")
        await chat.close()


async def test_a_message_that_is_not_rendered() -> None:
    """A template that leaves out the message to continue is an error that says so."""
    with pytest.raises(TemplateError, match="cannot be continued"):
        await continued("{{ messages[0].content }}", "a")


async def test_a_message_that_is_rendered_twice() -> None:
    """If the template writes the message twice, the prompt ends behind the second, and holds no tag."""
    assert await continued("{{ messages[1].content }}-{{ messages[1].content }}-", "a ") == "a -a "


async def test_tools_have_a_template(tmp_path: Path) -> None:
    """With tools the template named `tool_use` renders, otherwise `default`, and without the former `default` does."""
    named = {"default": "D{{ tools is none }}", "tool_use": "T{{ tools | length }}"}
    config = {"chat_template": [{"name": name, "template": template} for name, template in named.items()]}
    chat = load(tmp_path, tokenizer_config=config)
    assert chat.knows_tools
    assert await text(chat) == "DTrue"
    assert (await chat.render(USER, [{"type": "function"}])).plain == "T1"
    await chat.close()
    alone = Chat(make_tokenizer(), "{{ tools | length }}", {})
    assert (await alone.render(USER, [{"type": "function"}])).plain == "1"
    await alone.close()


async def test_templates_know_special_tokens(tmp_path: Path) -> None:
    """A template has the model's special tokens by name; a --tokenizer-config-path brings its own."""
    template = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token is defined }}"
    config = {"bos_token": {"content": "<b>"}, "eos_token": "<e>", "pad_token": "<p>", "chat_template": template}
    chat = load(tmp_path, tokenizer_config=config)
    (tmp_path / "other").write_text(json.dumps({"bos_token": "<B>", "chat_template": template}))
    other = load(tmp_path, config_path=str(tmp_path / "other"))
    assert [await text(chat), await text(other)] == ["<b><e><p>False", "<B><e><p>False"]
    for each in (chat, other):
        await each.close()
