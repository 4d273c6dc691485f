"""`peregrine quantize` as a command."""

import json
from pathlib import Path

import pytest
import torch

from checkpoints import build_model, write_checkpoint
from peregrine_router.launch.exit_codes import FAILED, WRONG_OPTIONS
from peregrine_router.launch.quantize_command import FORMATS, run_quantize
from peregrine_server.quantization.layouts import LAYOUTS


def test_formats_are_those_that_are_written() -> None:
    """The command, which loads no torch, offers what the process that it starts can write."""
    assert tuple(LAYOUTS) == FORMATS


@pytest.mark.slow
def test_a_folder_is_written_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With a progress bar on stderr; a second time it is refused in one line."""
    source = write_checkpoint(tmp_path / "source", build_model("7b", torch.bfloat16, num_hidden_layers=1))
    command = [str(source), "--format", "int4", "--output", str(tmp_path / "out")]
    assert run_quantize(command) == 0
    assert "writing int4: 100%" in capfd.readouterr().err
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["format"] == "pack-quantized"
    )
    assert run_quantize(command) == FAILED
    assert capfd.readouterr().err == f"peregrine quantize: {tmp_path / 'out'} exists: give --output a new folder\n"


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before a process is started."""
    assert run_quantize([str(tmp_path / "none"), "--format", "int8", "--output", str(tmp_path / "out")]) == FAILED
    assert capsys.readouterr().err.startswith(f"peregrine quantize: {tmp_path / 'none'} is not a folder")


def test_nf4_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """compressed-tensors has no layout for it."""
    with pytest.raises(SystemExit) as caught:
        run_quantize(["model", "--format", "nf4", "--output", "out"])
    assert caught.value.code == WRONG_OPTIONS
    assert "invalid choice: 'nf4'" in capsys.readouterr().err
