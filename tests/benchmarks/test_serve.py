"""Load on the real server with the demo model, through the command line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from serving import ServerProcess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--max-batch-total-tokens", "8192", "--max-total-tokens", "512") as running:
        yield running


def serve(
    server: ServerProcess, folder: Path, *options: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Runs `python -m benchmarks.serve`; the data it saved."""
    command = [sys.executable, "-m", "benchmarks.serve", "--url", f"http://127.0.0.1:{server.port}", *options]
    keep = ["--save", str(folder / "load.json"), "--plots", str(folder / "plots")]
    done = subprocess.run([*command, *keep], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done, json.loads((folder / "load.json").read_text())["summary"]


def test_an_open_loop_of_texts_with_cancellations(server: ServerProcess, tmp_path: Path) -> None:
    """TGI's route: nothing fails, clients that leave are counted apart, charts are drawn."""
    load = ("--sessions", "12", "--rate", "20", "--input", "4-40", "--output", "8-16", "--cancelled", "0.4")
    done, summary = serve(server, tmp_path, *load)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (summary["requests"], summary["errors"]) == (12, 0)
    assert 0 < summary["cancelled"] < 12
    assert "between tokens" in done.stdout
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == ["latency.svg", "tokens.svg"]
    for file in (tmp_path / "plots").iterdir():
        ElementTree.parse(file)


def test_a_closed_loop_of_conversations_as_ids(server: ServerProcess, tmp_path: Path) -> None:
    """OpenAI's route: every turn's prompt is longer by what was said, and every token asked for comes."""
    load = ("--sessions", "4", "--concurrency", "2", "--input", "10", "--output", "6", "--turns", "2")
    done, summary = serve(server, tmp_path, "--api", "openai", "--shared-prefix", "20", *load)
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary["generated_tokens"] == 4 * 2 * 6
    assert summary["prompt_tokens"] == 4 * (30 + 30 + 6 + 10)


def test_refusals_are_told_and_end_with_an_error(server: ServerProcess, tmp_path: Path) -> None:
    """A figure from a load that failed in part would mislead."""
    done, summary = serve(server, tmp_path, "--sessions", "2", "--api", "openai", "--input", "600", "--output", "4")
    assert done.returncode == 1
    assert summary["errors"] == 2
    assert "error: 4" in done.stdout
