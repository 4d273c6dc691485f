"""Weight formats by the name that --quantize takes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from peregrine_kernels import UnsupportedWeight, backend_for
from peregrine_server.models.formats.registry import format_names, weight_format
from plugins import plugin_environment
from serving import ServerProcess, write_model


def test_no_name_is_dense() -> None:
    """Without --quantize the weights stay as they are."""
    assert weight_format(None).name == "dense"


def test_a_backend_without_kernels_refuses_in_one_line() -> None:
    """The error names the option."""
    with pytest.raises(UnsupportedWeight, match=r"^--quantize int8 needs a CPU[^\n]*$"):
        weight_format("int8", backend_for(torch.device("meta")))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """One line that lists them."""
    with pytest.raises(ValueError, match=r"^--quantize int9 is not known: choose one of int8"):
        weight_format("int9")
    assert format_names() == ("int8",)


def test_formats_are_sized_without_torch() -> None:
    """The router can plan memory for any format."""
    code = (
        "import sys; from peregrine_server.models.formats.registry import weight_format;"
        "assert weight_format('int8').num_bytes(8, 16, 'bfloat16') == 8 * (16 + 8);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_format_of_one_file_is_served(tmp_path: Path) -> None:
    """Weights in a format that a test brings along give the tokens of the same weights without it."""
    plain = write_model(tmp_path / "plain")
    halves = write_model(tmp_path / "halves")
    tensors = load_file(halves / "model.safetensors")
    linears = [name for name in tensors if ".h." in name and tensors[name].dim() == 2]
    for name in linears:
        tensors[name.replace(".weight", ".halves")] = tensors.pop(name) / 2
    save_file(tensors, halves / "model.safetensors")
    environment = plugin_environment(tmp_path / "site", "peregrine.weight_formats", "halves", "toy_format:HalvesFormat")
    texts = []
    for path, options in ((plain, ()), (halves, ("--quantize", "halves"))):
        with ServerProcess("--model-id", str(path), "--dtype", "float32", *options, env=environment) as server:
            texts.append(server.generate("abc", max_new_tokens=20).json()["generated_text"])
    assert linears
    assert texts[0] == texts[1]
