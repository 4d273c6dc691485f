"""The CUDA image, built without torch's CUDA libraries: its kernels are there, compiled, and nothing compiles them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import CUDA_IMAGE, Container
from peregrine_kernels.aot.cache import write_libcuda

SOURCE = Path(__file__).parents[2] / "kernels" / "peregrine_kernels" / "aot"
CHECK = """
import os, shutil, sys
sys.path.append("/source")
import peregrine_kernels
peregrine_kernels.__path__.append("/source")
from triton import knobs
from triton.backends.nvidia.driver import CudaUtils
from peregrine_kernels.aot.cache import launches, warm
from peregrine_kernels.aot.shapes import SHAPES
hits = []
knobs.compilation.listener = lambda cache_hit, **_: hits.append(cache_hit)
shape = next(shape for shape in SHAPES if shape.name == "falcon-rw-1b")
kernels = {warm(launch, 80).hash for launch in launches(shape, 80)}
print("kernels", len(kernels), "hits", sum(hits), "misses", len(hits) - sum(hits))
print("compiler", shutil.which("gcc") or shutil.which("cc"))
print("written", os.path.exists("/tmp/.triton"), "writable", os.access(knobs.cache.dir, os.W_OK))
CudaUtils()
print("driver module loaded")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """With a libcuda whose functions do nothing, where the driver's is mounted."""
    folder = tmp_path_factory.mktemp("driver")
    write_libcuda(folder)
    folder.chmod(0o755)
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"
    mounts = ("--volume", f"{folder}/libcuda.so.1:{library}:ro", "--volume", f"{SOURCE}:/source/aot:ro")
    with Container("--device", "cpu", options=mounts, image=CUDA_IMAGE) as container:
        yield container.wait_healthy()


def test_kernels_come_from_the_read_only_cache(server: Container) -> None:
    """All that a server launches of a model, and the C module that launches them; there is no compiler."""
    lines = server.python(CHECK).splitlines()
    counts = [int(number) for number in re.findall(r"\d+", lines[0])]
    assert counts[0] >= 30
    assert counts[2] == 0
    assert lines[1:] == ["compiler None", "written False writable False", "driver module loaded"]
