"""The format of log lines, and the text that is never in one."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import FakeEngine, serve
from peregrine_router.observability import log as log_module
from peregrine_router.observability.log import configure_logging
from peregrine_router.text.chat_template import Chat


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_readable_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """By default an event is one readable line with its fields."""
    configure_logging()
    logging.getLogger("peregrine_router.x").info("done", extra={"fields": {"id": "a", "tokens": 3}})
    assert capsys.readouterr().err.endswith("Z INFO peregrine_router.x: done id=a tokens=3\n")


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """With JSON output every event is one object, tracebacks included."""
    configure_logging(json_output=True)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("peregrine_router.x").exception("failed", extra={"fields": {"id": "a"}})
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["level"], event["message"], event["target"], event["id"]) == (
        "ERROR",
        "failed",
        "peregrine_router.x",
        "a",
    )
    assert "ValueError: why" in event["exception"]


def test_what_is_written_past_the_log_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    """With JSON output the banner's lines, and a shard's in pieces, are events, whatever the level of the log."""
    configure_logging(json_output=True, level=logging.ERROR)
    print("peregrine: loading\n  model     x", file=sys.stderr)
    sys.stderr.write("Trace")
    sys.stderr.write("back\n\nunfinished")
    sys.stderr = sys.__stderr__
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["message"] for event in events] == ["peregrine: loading", "model     x", "Traceback"]
    assert {event["level"] for event in events} == {"INFO"}


def test_the_level_hides_what_is_less_severe(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the level itself is logged, one below it is not."""
    configure_logging(level=logging.WARNING)
    log = logging.getLogger("peregrine_router.x")
    log.info("hidden")
    log.warning("shown")
    assert capsys.readouterr().err.endswith("Z WARNING peregrine_router.x: shown\n")


def test_a_lost_collector_is_told_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter says it every second; an error beside its warnings, and our own lines, are not held back."""
    now = 100.0
    monkeypatch.setattr(log_module, "time", SimpleNamespace(monotonic=lambda: now))
    configure_logging()
    log, ours = logging.getLogger("opentelemetry.exporter"), logging.getLogger("peregrine_router.x")
    for now in (100.0, 101.0, 159.0, 160.0):
        log.warning("retry at %s", now)
        ours.warning("ours at %s", now)
    log.error("lost")
    said = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    retries = [line for line in said if line.startswith("retry")]
    assert retries == ["retry at 100.0", "retry at 160.0"]
    assert (said.count("lost"), len(said)) == (1, 7)


def test_no_text_in_logs(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    """Even at DEBUG, neither prompts nor generated text are logged; ends of requests are."""
    configure_logging(level=logging.DEBUG)
    with serve(engine) as server:
        server.generate("secret fox")
        server.generate("secret fox", path="/generate_stream")
        server.generate("secret fox", temperature=0)
    log = capsys.readouterr().err
    ends = [line for line in log.splitlines() if "peregrine_router.observability.request_log: " in line]
    assert [line.partition("request_log: ")[2].split()[0] for line in ends] == ["done", "done", "failed"]
    assert "secret" not in log
    assert "falcons" not in log


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "secret", "stop": ["secret"], "user": "secret"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "secret"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "secret", "content": "secret"}]}),
        ("/v1/responses", {"input": "secret", "instructions": "secret"}),
        ("/v1/responses", {"input": [{"type": "secret"}]}),
        ("/vertex", {"instances": [{"inputs": "secret"}]}),
        ("/tokenize", {"inputs": "secret"}),
        ("/chat_tokenize", {"messages": [{"role": "user", "content": "secret"}]}),
        ("/secret", {"inputs": "secret"}),
    ],
)
def test_no_route_logs_text(
    path: str, body: dict[str, Any], engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the API, answered or refused, at DEBUG."""
    configure_logging(level=logging.DEBUG)
    with serve(engine, chat=Chat(engine.tokenizer, "{{ messages[0].content }}", {})) as server:
        server.client.post(path, json=body)
    log = capsys.readouterr().err
    assert log
    assert "secret" not in log
    assert "falcons" not in log


def test_imports() -> None:
    """The HTTP side imports neither torch nor transformers."""
    code = "import sys, peregrine_router.app; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
