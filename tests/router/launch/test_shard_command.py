"""`peregrine keys` and `peregrine shard`; tests/test_machines.py runs shards that join."""

from pathlib import Path

import pytest

from peregrine_router.launch import shard_command
from peregrine_router.launch.exit_codes import FAILED, WRONG_OPTIONS
from peregrine_router.launch.shard_command import run_keys, run_shard
from peregrine_server.machines.curve_keys import read_keys, write_keys

SHARD = ["--rank", "1", "--num-shard", "2"]


@pytest.fixture(autouse=True)
def _environment_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shard_command.ENVIRONMENT_IS_SET, "1")


def test_keys_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second time is a line, and the file is as it was."""
    file = tmp_path / "keys"
    assert run_keys([str(file)]) == 0
    keys = read_keys(file)
    assert run_keys([str(file)]) == WRONG_OPTIONS
    assert capsys.readouterr().err.startswith(f"peregrine keys: {file} is there already")
    assert read_keys(file) == keys


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--router", "10.0.0.1:5555"], FAILED, "10.0.0.1:5555 is no address: write tcp://HOST:PORT"),
        (["--router", "tcp://127.0.0.1:1", "--shard-keys", "/nowhere"], FAILED, "No such file"),
        (["--router", "tcp://127.0.0.1:1", "--interface", "203.0.113.1"], FAILED, "is no address of this machine"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is connected."""
    write_keys(tmp_path / "keys")
    assert run_shard([*SHARD, "--shard-keys", str(tmp_path / "keys"), *options]) == code
    err = capsys.readouterr().err
    assert err.startswith("peregrine shard: ")
    assert words in err
    assert err.count("\n") == 1
