"""Chat templates that attack, from model folders: the start or the chat ends within its limits, the next one works."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import make_tokenizer
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.template_process import RENDER_SECONDS, TemplateError
from serving import ServerProcess, write_model
from untouched import memory, untouched

pytestmark = pytest.mark.slow

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DEEP = "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"
ATTACKS: dict[str, str] = {
    "endless loop": ENDLESS,
    "endless loop of output": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "endless filter": "{{ range(99999) | map('string') | join('a' * 99999) | length }}",
    "range without end": "{% for i in range(10 ** 9) %}{% endfor %}",
    "text without end": "{{ 'a' * 10 ** 10 }}",
    "doubled text": "{% set n = namespace(t='a') %}{% for i in range(60) %}{% set n.t = n.t*2 %}{% endfor %}",
    "doubled list": "{% set n = namespace(t=[1]) %}{% for i in range(60) %}{% set n.t = n.t*2 %}{% endfor %}",
    "nested lists": "{% set n = namespace(t=[]) %}{% for i in range(9999) %}{% set n.t = [n.t] %}{% endfor %}{{n.t}}",
    "number without end": "{{ 9 ** 9 ** 9 }}",
    "number of many digits": "{{ (10 ** 99999) | string }}",
    "centred text": "{{ 'a' | center(10 ** 10) }}",
    "formatted text": "{{ '%*d' % (10 ** 10, 1) }}",
    "long format": "{{ '{:>9999999999}'.format(1) }}",
    "indented text": "{{ ('a\n' * 99999) | indent(99999) }}",
    "lorem ipsum": "{{ lipsum(n=10 ** 6, max=10 ** 6) }}",
    "output without end": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "recursive macro": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "macros that call one another": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}",
    "recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "attributes of classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attributes by filter": "{{ '' | attr('__class__') }}",
    "attributes by format": "{{ '{0.__class__}'.format(messages) }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of a macro": "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
    "internals of the environment": "{{ self._TemplateReference__context }}",
    "a cycler's globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "changed messages": "{{ messages.clear() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "extends": "{% extends 'base' %}",
    "exception": "{{ raise_exception('no\\nway') }}",
    "exception of a long text": "{{ raise_exception('no' * 10 ** 6) }}",
    "division by zero": "{{ 1 / 0 }}",
    "undefined": "{{ messages.nothing.at.all }}",
    "unfinished": "{% if",
    "deep expression": DEEP,
    "deep blocks": "{% if 1 %}" * 15 + ENDLESS + "{% endif %}" * 15,
    "date of a long format": "{{ strftime_now('%c' * 10 ** 8) }}",
    "sorting without end": "{{ range(99999) | batch(1) | sort | tojson(indent=10 ** 6) }}",
    "no text": "\ud800",
}
"""Name -> template. Each runs if the first message is its name, so that one server has them all."""
FINE = "{{ messages[0].content }}"
COMPILES = [name for name in ATTACKS if name not in ("unfinished", "deep expression", "extends")]
MAX_ERROR_CHARACTERS = 3000
SLOW_SECONDS = RENDER_SECONDS + 8
"""Generous: the process may have to be started, on a machine that others share."""


def write_template(path: Path, template: str) -> Path:
    """A model's folder with a chat template."""
    write_model(path)
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "~"}))
    return path


def chat(server: ServerProcess, content: str) -> tuple[int, str]:
    """Status and text of an answer."""
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}
    answer = server.client.post("/v1/chat/completions", json=body)
    return answer.status_code, answer.text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose template has every attack that compiles."""
    branches = "".join(f"{{% elif messages[0].content == {name!r} %}}{ATTACKS[name]}" for name in COMPILES)
    template = f"{{% if false %}}{branches}{{% else %}}{FINE}{{% endif %}}"
    path = write_template(tmp_path_factory.mktemp("model"), template)
    with ServerProcess("--model-id", str(path), "--dtype", "float32") as server:
        assert chat(server, "hi")[0] == 200
        with untouched(server):
            yield server


@pytest.mark.parametrize("name", COMPILES)
def test_a_chat_that_a_template_attacks_ends(server: ServerProcess, name: str) -> None:
    """In time, with 400 or a text that harms nobody; the router takes no memory, and the next chat works."""
    before, start = memory(server.process.pid), time.monotonic()
    status, text = chat(server, name)
    assert time.monotonic() - start < SLOW_SECONDS
    assert status in (200, 400), text
    assert len(text) < MAX_ERROR_CHARACTERS, text[:500]
    assert not any(word in text for word in ("Traceback", "root:", "/usr/", "site-packages", ".py")), text
    assert memory(server.process.pid) - before < 200 * 10**6
    assert chat(server, "hi")[0] == 200


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in COMPILES])
async def test_a_template_that_does_not_compile_refuses_chats(name: str) -> None:
    """With the same error each time, and no process that has to be started again."""
    chat = Chat(make_tokenizer(), ATTACKS[name], {})
    for _ in range(2):
        with pytest.raises(TemplateError):
            await chat.render([{"role": "user", "content": "hi"}], None)
    await chat.close()
