"""Starts that cannot succeed: one line, exit code 1, nothing left."""

import resource
import subprocess
from pathlib import Path

import pytest

from ends import EndingServer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a host name of nobody", ["--hostname", "no.such.host.invalid"], "check --hostname and --port"),
        ("an address of no interface", ["--hostname", "192.0.2.1"], "check --hostname and --port"),
        ("a model folder that is not there", ["--model-id", "/nowhere/at/all"], "/nowhere/at/all"),
        ("a key file that is not there", ["--api-key-file", "/nowhere/keys"], "/nowhere/keys cannot be read"),
    ],
)
def test_options_that_name_nothing(name: str, options: list[str], says: str, tmp_path: Path) -> None:
    """Before a shard is started."""
    with EndingServer(tmp_path, *options, wait=False) as server:
        outcome = server.end(lambda: None, f"start, {name}")
    assert (outcome.code, outcome.left, len(outcome.lines)) == (1, [], 1)
    assert says in outcome.lines[0]


def test_rights_that_are_missing(tmp_path: Path) -> None:
    """A port below 1024 and a model folder that may not be read, for a root without its capabilities."""
    via = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    if subprocess.run([*via, "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root gives up capabilities")
    model = tmp_path / "model"
    model.mkdir(mode=0)
    for name, options in (("a privileged port", ["--port", "80"]), ("an unreadable model", ["--model-id", str(model)])):
        with EndingServer(tmp_path, *options, via=via, wait=False) as server:
            outcome = server.end(lambda: None, f"start, {name}")
        assert (outcome.code, outcome.left, len(outcome.lines)) == (1, [], 1)
        assert "ermission" in outcome.lines[0]


@pytest.mark.parametrize("limit", [600 * 2**20, 1400 * 2**20])
def test_too_little_address_space(limit: int, tmp_path: Path) -> None:
    """Threads cannot start, or the shard cannot load (`ulimit -v`); one line says so."""
    with EndingServer(tmp_path, wait=False) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        outcome = server.end(lambda: None, f"start, ulimit -v of {limit >> 20} MB")
    assert (outcome.code, outcome.left, len(outcome.lines)) == (1, [], 1), server.said
