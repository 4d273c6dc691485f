"""Texts of errors: clients read no path, no exception and no place in a source file; the log has them."""

import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

import peregrine_router.admission.grammar_checker as grammar_module
from fakes import INFO, FakeEngine, Server, listen, train_backend, wait_until
from peregrine_router.admission.grammar_checker import GrammarChecker
from peregrine_router.app import build_app
from peregrine_router.observability.log import LineFormatter
from peregrine_router.request import GenerationFailed, ShardFault
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.structured.compiler import GrammarError

DETAIL = "no such /usr/lib/python3/x.py, line 7: <X object at 0x7f00aa> panicked at /usr/src/y.rs:7:1"
"""The text of an exception, with everything that no client may read."""
PATH = re.compile(r"(?:/[\w.+-]+){2,}")
SIGNS = re.compile(
    r"\.rs:|\.py\b|site-packages|Traceback"
    r"|\b[A-Z]\w*(Error|Exception|Fault)\b|0x[0-9a-f]{3}| object at 0|panicked|codec|maximum recursion"
)
TEMPLATE = (
    "{% set said = messages[0].content %}{% if said == 'type' %}{{ 1 + messages }}{% elif said == 'attribute' %}"
    "{{ messages.x.y }}{% elif said == 'class' %}{{ ''.__class__.x }}{% elif said == 'value' %}{{ 'x'.center('y') }}"
    "{% elif said == 'memory' %}{{ 'a' * 9999999999 }}{% elif said == 'zero' %}{{ 1 // 0 }}{% endif %}{{ said }}"
)
USER = [{"role": "user", "content": "hi"}]
GENERATING: dict[str, dict[str, Any]] = {
    "/": {"inputs": "a"},
    "/generate": {"inputs": "a"},
    "/generate_stream": {"inputs": "a"},
    "/invocations": {"inputs": "a"},
    "/vertex": {"instances": [{"inputs": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": USER},
    "/v1/responses": {"input": "a"},
}
STREAMING: dict[str, dict[str, Any]] = {
    path: {**GENERATING[path], "stream": True} for path in ("/", *list(GENERATING)[-3:])
}
STREAMING["/generate_stream"] = GENERATING["/generate_stream"]
TOKENIZING: dict[str, dict[str, Any]] = {
    "/tokenize": {"inputs": "a"},
    "/detokenize": {"tokens": [1]},
    "/chat_tokenize": {"messages": USER},
}
BODIES = [
    *(
        "",
        "{",
        "[]",
        "{}",
        "null",
        "3",
        '"x"',
        "[" * 5000,
        '{"a":' * 300,
        "NaN",
        '{"inputs": 1e999}',
        '{"inputs": "\\ud800"}',
    ),
    *("\0", "\ufeff{}", '{"inputs": "a", "prompt": 3, "messages": 3, "input": {}, "instances": 3, "tokens": "x"}'),
    '{"inputs": ["a"], "prompt": {}, "messages": [3], "input": [3], "instances": [3], "tokens": [-1]}',
    '{"inputs": "\\u0000", "prompt": "\\u0000", "input": "\\u0000", "tokens": [99999]}',
    '{"inputs": "a", "prompt": "a", "input": "a", "parameters": {"temperature": "x"}, "temperature": "x"}',
    json.dumps(
        {
            "inputs": "a " * 99,
            "prompt": "a " * 99,
            "input": "a " * 99,
            "messages": [{"role": "user", "content": "a " * 99}],
        }
    ),
]
GRAMMARS: list[tuple[str, Any]] = [
    *(("regex", each) for each in ("(", "[a-", "\\p{Foo}", "\ud800", "a" * 70_000, "\0", "x{4294967296}", "")),
    *(
        ("lark", each)
        for each in ("start: foo", "start: <[9999999]>", "%import a.b\nstart: /x/", "start: @x", "\ud800")
    ),
    *(
        ("json", each)
        for each in ("{", '{"$ref": "http://x/y"}', '{"$ref": "#/%ff"}', "[" * 9000, '{"$id": "::"}', "3")
    ),
    *(("json", each) for each in ({"type": 3}, {"pattern": "("}, {"multipleOf": 0}, {"$schema": "x"})),
    *(("json", each) for each in ({"minimum": 2**63}, {"properties": {"\ud800": {"type": "x"}}}, {"enum": 3}, 3)),
]


class Log(logging.Handler):
    """The lines of the log, each with its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    backend = train_backend()
    tokenizer = Tokenizer(backend, frozenset({0}))
    folder = tmp_path_factory.mktemp("model")
    backend.save(str(folder / "tokenizer.json"))
    engine, settings = FakeEngine(tokenizer), Settings()
    grammars = GrammarChecker.load(folder, INFO.vocab_size, frozenset({0}))
    chat = Chat(tokenizer, TEMPLATE, {})
    app = build_app(engine, tokenizer, settings, INFO, chat=chat, check_grammar=grammars.check)
    with listen(app, settings) as url:
        server = Server(url, engine)
        with server.client:
            yield server


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    handler = Log()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def assert_plain(text: str) -> None:
    """No path of this machine, and no sign of an exception."""
    assert not (found := SIGNS.search(text)), (found, text)
    for path in PATH.findall(text):
        assert not os.path.exists("/".join(path.split("/")[:3])), text


def ask(server: Server, path: str, body: dict[str, Any]) -> tuple[str, str]:
    """(request id, text of the answer, which is an error)."""
    answer = server.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert '"error' in answer.text
    assert_plain(answer.text)
    return answer.headers["x-request-id"], answer.text


def assert_logged(log: Log, request_id: str, detail: str = DETAIL) -> None:
    """The detail is in a line that has the request's id."""

    def is_logged() -> bool:
        return any(detail in line and f" id={request_id}" in line.partition("\n")[0] for line in log.lines)

    # A traceback is logged after the answer.
    wait_until(is_logged)


def routes(server: Server) -> list[tuple[str, str]]:
    """(method, path) of every route."""
    paths = server.client.get("/openapi.json").json()["paths"]
    return [(method.upper(), re.sub(r"\{.*?\}", "x", path)) for path, methods in paths.items() for method in methods]


@pytest.mark.slow
def test_bad_bodies_on_every_route(server: Server) -> None:
    """Whatever is wrong with a body, and whatever the route, the answer is plain."""
    headers = {"content-type": "application/json"}
    posts = [path for method, path in routes(server) if method == "POST"]
    assert {*GENERATING, *TOKENIZING} <= set(posts)
    for path in posts:
        for body in BODIES:
            answer = server.client.post(path, content=body.encode("utf-8", "surrogatepass"), headers=headers)
            assert answer.status_code < 500
            assert_plain(answer.text)
        assert_plain(server.client.post(path, content=b"\xff\xfe", headers=headers).text)
        assert_plain(server.client.post(path, content=b"x").text)


def test_wrong_methods_and_paths(server: Server) -> None:
    """Nor is there anything in a 404 or a 405 but what the client sent."""
    for method, path in [*routes(server), ("GET", "/x/y/z"), ("GET", "/v1/models/x/y"), ("GET", "/v1/responses/x")]:
        for used in {"GET", "POST", "DELETE", "PUT"} - {method}:
            assert_plain(server.client.request(used, path).text.replace(path, "") if used != "GET" else "")


@pytest.mark.parametrize(("kind", "value"), GRAMMARS)
def test_bad_grammars(server: Server, kind: str, value: Any) -> None:
    """The place of the error is in the client's text, not in the compiler's."""
    for path in ("/generate", "/generate_stream"):
        ask(server, path, {"inputs": "a", "parameters": {"grammar": {"type": kind, "value": value}}})


@pytest.mark.parametrize("said", ["type", "attribute", "class", "value", "memory", "zero"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/chat_tokenize", "/invocations"])
def test_errors_of_templates(server: Server, log: Log, path: str, said: str) -> None:
    """The words of Jinja and Python are in the log, beside the request's id."""
    body = {"messages": [{"role": "user", "content": said}]}
    request_id, text = ask(server, path, {"input": said} if path == "/v1/responses" else body)
    assert "emplate" in text
    if said != "memory":
        assert_logged(log, request_id, "cause=TemplateFault: ")


@pytest.mark.parametrize("path", list(GENERATING))
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_fault_in_the_engine(
    server: Server, log: Log, path: str, is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of our own, before and in a stream, and a request that a shard could not go on with."""
    body = STREAMING.get(path, GENERATING[path]) if is_stream else GENERATING[path]
    lost = GenerationFailed("no")
    lost.__cause__ = ShardFault(DETAIL)
    with monkeypatch.context() as patch:
        patch.setattr(server.engine, "submit_error", ZeroDivisionError(DETAIL))
        assert_logged(log, ask(server, path, body)[0])
    for error in (ZeroDivisionError(DETAIL), lost):
        monkeypatch.setattr(server.engine, "error_at", 2)
        monkeypatch.setattr(server.engine, "error", error)
        assert_logged(log, ask(server, path, body)[0])


@pytest.mark.parametrize("path", [*GENERATING, *TOKENIZING])
@pytest.mark.parametrize("error", [Exception(DETAIL), KeyError(DETAIL), OSError(2, DETAIL, DETAIL)])
def test_a_fault_in_the_tokenizer(
    server: Server, log: Log, path: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is the library's, which refuses a text, or our own."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("encode", "encode_prompt", "prompt_spans", "decode"):
        monkeypatch.setattr(server.engine.tokenizer, name, fail)
    chat = "peregrine_router.text.special_tokens.SpecialTokenEscaper"
    monkeypatch.setattr(f"{chat}.encode", fail)
    monkeypatch.setattr(f"{chat}.spans", fail)
    assert_logged(log, ask(server, path, {**GENERATING, **TOKENIZING}[path])[0])


class Panic(BaseException):
    """As pyo3's PanicException, a BaseException."""


@pytest.mark.parametrize("error", [Panic(DETAIL), GrammarError(DETAIL), OSError(2, DETAIL)])
def test_a_fault_in_the_grammar_compiler(
    server: Server, log: Log, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A panic of the library, raised or told; the second request gets the verdict of the first."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(grammar_module, "compile_grammar", fail)
    grammar = {"type": "regex", "value": f"a{type(error).__name__}"}
    for path in ("/generate", "/generate", "/v1/completions"):
        body = {"inputs": "a", "parameters": {"grammar": grammar}}
        openai = {"prompt": "a", "response_format": grammar}
        request_id, _ = ask(server, path, openai if path.startswith("/v1") else body)
        assert_logged(log, request_id)
