"""The CPU backends to be tested: torch's ops everywhere, the native kernels where this machine runs them.

Those for AMX also where there is AVX512-BF16 and a compiler, on tiles that `amx_emulated.h` computes.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path

import pytest

from peregrine_kernels import Backend
from peregrine_kernels import native as kernels_package
from peregrine_kernels.cpu.native_backend import NativeBackend
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.native import TARGETS, library, library_for, load

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512bf16", "avx512vnni", "prfchw")


def torch_backend() -> Backend:
    return TorchBackend()


def native_backend(target: str) -> NativeBackend:
    return NativeBackend(kernels_for(target), target)


@cache
def kernels_for(target: str) -> ctypes.CDLL:
    """The kernels of a target; those of AMX on emulated tiles, if this CPU has none."""
    if (kernels := library_for(target)) is not None:
        return kernels
    assert target == "amx"
    assert COMPILER is not None
    header, sources = Path(__file__).with_name("amx_emulated.h"), Path(kernels_package.__file__).parent.glob("*.c")
    options = ["-O2", "-std=gnu11", "-shared", "-fPIC", "-D__AMX_TILE__", "-include", str(header)]
    options += os.environ.get("CFLAGS", "").split()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "libperegrine_amx.so"
        features = [f"-m{feature}" for feature in FEATURES]
        subprocess.run([COMPILER, *options, *features, *map(str, sources), "-lm", "-o", str(made)], check=True)
        kernels = load(made)
    assert kernels is not None
    return kernels


def _runs(target: str) -> pytest.MarkDecorator:
    is_emulated = target == "amx" and library_for("avx512") is not None and COMPILER is not None
    return pytest.mark.skipif(library_for(target) is None and not is_emulated, reason=f"this CPU has no {target}")


native = pytest.mark.skipif(library() is None, reason="this CPU has no AVX2")
"""Marks a test of the native kernels that the server would take here."""

targets = pytest.mark.parametrize("target", [pytest.param(each, marks=_runs(each)) for each in TARGETS])
"""Gives a test `target`, each that this CPU runs."""

both = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(torch_backend, id="torch"),
        *(pytest.param(partial(native_backend, each), id=each, marks=_runs(each)) for each in TARGETS),
    ],
)
"""Gives a test `backend`, a function that makes one."""
