"""Kernels compiled ahead of time are the ones that a server asks for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peregrine_kernels.aot.cache import write_libcuda

PROCESS = Path(__file__).with_name("launched_process.py")
PATHS = ":".join([str(PROCESS.parents[2]), *sys.path])
FILL = """
from peregrine_kernels.aot.cache import build_driver_module, launches, warm
from peregrine_kernels.aot.shapes import SHAPES
build_driver_module()
shape = next(shape for shape in SHAPES if shape.name == "falcon-7b")
for launch in launches(shape, 80):
    if launch.kernel.__name__ == "layer_norm_kernel":
        warm(launch, 80)
"""
USE = """
from triton import knobs
from triton.backends.nvidia.driver import CudaUtils
hits = []
knobs.compilation.listener = lambda cache_hit, **_: hits.append(cache_hit)
{fill}
assert hits == [True, True], hits
CudaUtils()
"""


def run(code: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": PATHS, **environment})


def compiler_alone(folder: Path) -> str:
    """A PATH with a C compiler alone: the key of the C module depends on whether there is a command `file`."""
    folder.mkdir()
    for program in ("gcc", "as", "ld"):
        (folder / program).symlink_to(f"/usr/bin/{program}")
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["falcon-7b"],
        ["falcon-rw-1b"],
        ["falcon-rw-1b", "int4"],
        ["falcon-7b", "nf4"],
        ["falcon-7b", "fp8-w8a8"],
    ],
    ids=" ".join,
)
def test_all_that_a_server_launches_before_it_is_ready_is_in_the_cache(arguments: list[str], tmp_path: Path) -> None:
    """In parallel blocks, in sequential ones with biases and ALiBi, with linears of 4 bits beside a head of 8, with
    scales of float32, and with inputs that are rounded."""
    model, *quantize = arguments
    command = [sys.executable, str(PROCESS), model, str(tmp_path), *quantize]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": PATHS})
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["launched"]) >= 12
    assert set(result["launched"]) <= set(result["cached"])


@pytest.mark.slow
def test_a_host_with_a_full_cache_compiles_nothing(tmp_path: Path) -> None:
    """It finds the kernels, and loads the C module by which Triton launches them, without any compiler."""
    cache = {"TRITON_CACHE_DIR": str(tmp_path)}
    run(FILL, PATH=compiler_alone(tmp_path / "bin"), **cache)
    write_libcuda(tmp_path)
    fill = FILL.replace("build_driver_module()", "")
    run(USE.format(fill=fill), PATH="", LD_LIBRARY_PATH=str(tmp_path), TRITON_LIBCUDA_PATH=str(tmp_path), **cache)
