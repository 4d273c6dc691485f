"""Compiles the native CPU kernels when the package is built: into the wheel, or in place for an editable install.

If the system has no C compiler, the build requires `ziglang`: clang as a Python package. Nothing is compiled on other
platforms than x86-64 Linux.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = "kernels/peregrine_kernels/native"
FLAGS = ["-O3", "-std=c11", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
AVX512 = ["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512bf16", "avx512vnni", "prfchw"]
TARGETS = {"amx": [*AVX512, "amx-tile", "amx-bf16", "amx-int8"], "avx512": AVX512, "avx2": ["f16c"]}
"""Instruction sets that each library uses besides AVX2 and FMA; the loader checks which libraries a CPU runs."""


class NativeKernels(BuildHookInterface[Any]):
    """Build hook that hatchling finds through `tool.hatch.build.hooks.custom`."""

    def dependencies(self) -> list[str]:
        """Requirements of the build besides hatchling."""
        return ["ziglang>=0.13"] if has_native_kernels() and find_compiler() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the libraries, before the files are collected."""
        if self.target_name != "wheel" or not has_native_kernels():
            return
        folder = Path(self.root) / SOURCES
        libraries = [folder / f"libperegrine_{target}.so" for target in TARGETS if compile_library(folder, target)]
        if len(libraries) < len(TARGETS):
            self.app.display_warning("not all native CPU kernels compile here: bfloat16 on a CPU may be slower")
        if not libraries:
            return
        build_data["artifacts"] += [f"{SOURCES}/{library.name}" for library in libraries]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform.system().lower()}_{platform.machine()}"


def compile_library(folder: Path, target: str, options: Sequence[str] = ()) -> bool:
    """Compiles the sources in the folder for one of TARGETS; returns whether that worked (old compilers know fewer)."""
    compiler = find_compiler() or [sys.executable, "-m", "ziglang", "cc"]
    partial = folder / f"libperegrine_{target}.partial"
    sources = [str(source) for source in sorted(folder.glob("*.c"))]
    features = [f"-m{feature}" for feature in ("avx2", "fma", *TARGETS[target])]
    command = [*compiler, *FLAGS, *features, *options, *sources, "-lm", "-o", str(partial)]
    done = subprocess.run(command, check=False)
    if done.returncode == 0:
        # Renamed into place: a running server keeps the file that it has mapped.
        partial.replace(partial.with_suffix(".so"))
    return done.returncode == 0


def has_native_kernels() -> bool:
    """Whether there are kernels for this platform."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def find_compiler() -> list[str] | None:
    """The C compiler: the one that CC names, or else the system's; None if there is none."""
    if named := shlex.split(os.environ.get("CC", "")):
        return named
    path = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return None if path is None else [path]
