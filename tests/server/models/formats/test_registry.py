"""Weight formats by the name that --quantize takes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from peregrine_kernels import UnsupportedWeight
from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.interface import KernelsOfDevice
from peregrine_server.models.formats.registry import FORMATS, STORED, format_names, stored_format, weight_format
from plugins import plugin_environment
from serving import ServerProcess, write_model


def test_no_name_is_dense() -> None:
    """Without --quantize the weights stay as they are."""
    assert weight_format(None).name == "dense"


@pytest.mark.parametrize("name", FORMATS)
def test_a_backend_without_kernels_refuses_in_one_line(name: str) -> None:
    """The error names the option, unless weights are to be dequantized there."""
    kernels = KernelsOfDevice(0, has_fp8=False, int4_group=0, has_codebooks=False, dequantizes=False)
    with pytest.raises(UnsupportedWeight, match=rf"^{name} weights have no kernels for this device: [^\n]*$"):
        weight_format(name, kernels)
    assert weight_format(name, replace(kernels, dequantizes=True)).compute_dtype is None


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """One line that lists them."""
    with pytest.raises(ValueError, match=r"^--quantize int9 is not known: choose one of int8"):
        weight_format("int9")
    assert format_names() == ("int8", "fp8", "fp8-w8a8", "int4", "nf4")


@pytest.mark.parametrize("name", [*STORED, None])
def test_a_name_of_what_checkpoints_hold_needs_such_a_checkpoint(name: str | None) -> None:
    """Without quantized weights it is refused in one line; a layout that is not read, whatever the option says."""
    if name is not None:
        with pytest.raises(ValueError, match=rf"^--quantize {name}: the checkpoint's weights are not quantized: "):
            stored_format(None, name)
    with pytest.raises(UnsupportedModel, match=r"^weights quantized by 'new' are not read [^\n]*$"):
        stored_format({"quant_method": "new"}, name)


def test_formats_are_sized_without_torch() -> None:
    """The router can plan memory for any format."""
    code = (
        "import sys; from peregrine_server.models.formats.registry import weight_format;"
        "assert weight_format('int8').num_bytes(8, 16, 'bfloat16') == 8 * (16 + 4);"
        "assert weight_format('int4').num_bytes(8, 128, 'bfloat16') == 8 * (64 + 2 * 2);"
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
