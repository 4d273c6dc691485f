"""The command `peregrine plan`."""

import json
import shlex
from pathlib import Path

import pytest

from fakes import train_backend
from gguf_checkpoints import MIXES, write_gguf
from peregrine_router.planning.command import run_plan
from serving import ServerProcess


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("falcon-7b --device a10g", 0), ("falcon-180b --device a10g", 1), ("falcon-40b --device a100-40g --json", 0)],
)
def test_the_exit_code_says_whether_it_fits(arguments: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts need not read the words."""
    assert run_plan(arguments.split()) == code
    printed = capsys.readouterr()
    assert printed.out
    assert not printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("llama", "llama is neither a folder nor a model that is known without a download: give the folder, or one"),
        ("falcon-7b --device b200", "--device b200 is not known: choose one of a10g, l4, t4"),
        ("falcon-7b --quantize int3", "--quantize int3 is not known: choose one of none, int8"),
        ("falcon-7b --kv-cache-dtype int4", "--kv-cache-dtype int4 is not known: choose one of fp8_e4m3fn, int8"),
        ("falcon-7b --num-shard 0", "--num-shard 0 must be at least 1"),
        ("falcon-7b --max-total-tokens -1", "--max-total-tokens -1 must be at least 1"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the choices; the exit code is 2."""
    assert run_plan(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"peregrine plan: {message}")
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_folder_without_a_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loader's own words."""
    assert run_plan([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("config.json does not exist: give the directory of a downloaded model\n")


def test_other_names_of_formats_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """text-generation-launcher's, and `none` for unquantized weights."""
    for name, quantize in (("eetq", "int8"), ("none", None)):
        run_plan(["falcon-7b", "--device", "a10g", "--quantize", name, "--json"])
        assert json.loads(capsys.readouterr().out)["quantize"] == quantize


@pytest.mark.slow
@pytest.mark.parametrize("name", ["peregrine/falcon-demo", "falcon.gguf"])
def test_the_server_says_what_was_foretold(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line that `plan` prints starts a server whose start-up has the two lines that `plan` printed."""
    if name.endswith(".gguf"):
        write_gguf(file := tmp_path / name, "40b", MIXES["Q4_K_M of 40B"], tokenizer=train_backend(), eos_token_id=0)
        name = str(file)
    assert run_plan([name]) == 0
    *_, command, _, _, weights, cache = capsys.readouterr().out.splitlines()
    log = tmp_path / "log"
    with log.open("w") as stderr, ServerProcess(*shlex.split(command)[2:], stderr=stderr):
        said = log.read_text().splitlines()
    assert weights in said
    assert cache in said


@pytest.mark.parametrize("arguments", ["falcon-7b --cpu-offload-gb 4", "falcon-7b --device t4 --cpu-offload-gb -1"])
def test_an_offload_that_there_cannot_be_is_one_line(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU, or of less than nothing."""
    assert run_plan(arguments.split()) == 2
    assert "--cpu-offload-gb" in capsys.readouterr().err
