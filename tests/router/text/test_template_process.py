"""Templates that misbehave, and the process that they run in."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fakes import make_tokenizer
from peregrine_router.text import template_process
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.template_process import TemplateError, TemplateProcessDied
from serving import is_alive, wait_until

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
    """A template's fault is a TemplateError that says which, or whose cause does, and the next request is served."""
    async with chatting(template) as chat:
        for _ in range(2):
            with pytest.raises(TemplateError) as raised:
                await text(chat)
            assert re.search(message, str(raised.value.__cause__ or raised.value))


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


def process_of(chat: Chat) -> asyncio.subprocess.Process:
    """The process behind a chat that has rendered."""
    assert chat._process is not None
    assert chat._process._process is not None
    return chat._process._process


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_killed_process_is_replaced(is_noticed: bool) -> None:
    """If it dies while it is idle, no request fails, whether the router has noticed or not."""
    async with chatting("{{ messages[0].content }}") as chat:
        assert await text(chat) == "hi"
        for _ in range(3):
            process = process_of(chat)
            os.kill(process.pid, signal.SIGKILL)
            if is_noticed:
                await process.wait()
            assert await text(chat) == "hi"


async def test_a_process_that_dies_while_it_renders_is_replaced() -> None:
    """The request is rendered by the next one."""
    template = "{% for i in range(9999) %}{{ 'x' if i == 0 }}{% endfor %}{{ messages[0].content }}"
    async with chatting(template) as chat:
        assert await text(chat) == "xhi"
        os.kill(process_of(chat).pid, signal.SIGSTOP)
        rendering = asyncio.create_task(text(chat))
        await asyncio.sleep(0.2)
        os.kill(process_of(chat).pid, signal.SIGKILL)
        assert await rendering == "xhi"


async def test_a_process_that_always_dies_is_not_the_clients_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts a request, then none for a second; once it can be started again, requests are served."""
    async with chatting("{{ messages[0].content }}") as chat:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/bin/false")
            for _ in range(20):
                with pytest.raises(TemplateProcessDied):
                    await text(chat)
        with pytest.raises(TemplateProcessDied):
            await text(chat)
        monkeypatch.setattr(template_process, "RESTART_SECONDS", 0.0)
        await asyncio.sleep(1.1)
        assert await text(chat) == "hi"


async def test_a_process_that_does_not_start_is_not_the_clients_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, and the request answered with the server's error."""
    monkeypatch.setattr(template_process, "START_SECONDS", 0.0)
    async with chatting("{{ messages[0].content }}") as chat:
        with pytest.raises(TemplateProcessDied):
            await text(chat)


def test_a_looping_template_leaves_with_its_parent() -> None:
    """The parent is killed, and the worker, which reads no input meanwhile, does not stay."""
    code = (
        "import json, subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-m', 'peregrine_router.text.template_worker'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True);"
        "loop = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}';"
        "print(json.dumps({'template': loop}), file=p.stdin, flush=True); p.stdout.readline();"
        "print('{}', file=p.stdin, flush=True); print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        assert is_alive(worker)
        parent.kill()
        assert wait_until(lambda: not is_alive(worker), 5)
