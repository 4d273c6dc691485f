"""Templates that misbehave, and the process that they run in."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fakes import make_tokenizer
from peregrine_router.text import template_process
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.template_process import TemplateError

pytestmark = pytest.mark.slow

USER = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def chatting(template: str | None) -> AsyncIterator[Chat]:
    chat = Chat(make_tokenizer(), template, {})
    yield chat
    await chat.close()


async def text(chat: Chat, messages: list[dict[str, Any]] = USER) -> str:
    return (await chat.render(messages, None)).plain


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
