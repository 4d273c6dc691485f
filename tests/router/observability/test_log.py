"""The format of log lines, and the text that is never in one."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fakes import FakeEngine, serve
from peregrine_router.observability.log import configure_logging


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


def test_imports() -> None:
    """The HTTP side imports neither torch nor transformers."""
    code = "import sys, peregrine_router.app; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
