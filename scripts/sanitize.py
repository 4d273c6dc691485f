"""The C kernels' tests with address and undefined-behaviour sanitizers: `make test-sanitized`. Needs gcc, x86-64 Linux.

The tests run against a copy of the kernels package with instrumented libraries. AMX tiles are emulated, because the
sanitizers do not see what tile instructions read and write; nor do they see inline assembly and AVX512's masked loads
and stores. Arguments are pytest's.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from hatch_build import SOURCES, TARGETS, compile_library

from peregrine_kernels.native import library_for

ROOT = Path(__file__).parents[1]
OPTIONS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
EMULATION = ["-include", str(ROOT / "tests/amx_emulated.h")]
TESTS = ["tests/kernels/cpu", *(f"tests/kernels/test_{name}.py" for name in ("dense_ops", "paged_ops", "int4", "int8"))]
OVERRUN = """
import sys, torch
from peregrine_kernels.native import library_for
scores, out = torch.zeros(64), torch.zeros(1, dtype=torch.int64)
library_for(sys.argv[1]).peregrine_argmax(scores.data_ptr(), 1, 65, out.data_ptr())
"""
"""Reads one element past the end of a tensor, to prove that the libraries which the tests load are instrumented."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        kernels = Path(folder) / "kernels"
        shutil.copytree(ROOT / "kernels", kernels, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        native = Path(folder) / SOURCES
        with ThreadPoolExecutor() as pool:
            if not all(pool.map(partial(compile_instrumented, native), TARGETS)):
                return 1
        environment = make_environment(kernels)
        for target in TARGETS:
            if library_for(target) is not None and not is_caught(target, environment):
                print(f"{target}: an overrun made on purpose went unnoticed; is gcc's libasan in use?", file=sys.stderr)
                return 1
        # What a sanitizer writes before it ends the process must not be captured.
        tests = [sys.executable, "-m", "pytest", "-q", "--capture=sys", "-p", "no:cacheprovider"]
        return subprocess.run([*tests, *(sys.argv[1:] or TESTS)], cwd=ROOT, env=environment, check=False).returncode


def compile_instrumented(folder: Path, target: str) -> bool:
    return compile_library(folder, target, OPTIONS + (EMULATION if target == "amx" else []))


def make_environment(kernels: Path) -> dict[str, str]:
    """The environment of processes that import `kernels` and load the sanitizers' runtimes first.

    CFLAGS are for the libraries that tests compile themselves. Leaks are not reported: Python's own would drown them.
    An allocation that is too large fails as malloc's does, so that the kernels' own answer to it is what tests see.
    """
    runtimes = [find_runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so")]
    return os.environ | {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "CFLAGS": " ".join(OPTIONS),
        "PYTHONPATH": os.pathsep.join([str(kernels), str(ROOT / "server"), str(ROOT / "router")]),
    }


def find_runtime(name: str) -> str:
    done = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return str(Path(done.stdout.strip()).resolve())


def is_caught(target: str, environment: dict[str, str]) -> bool:
    """Whether the address sanitizer ends a process that runs OVERRUN with the kernels for `target`."""
    command = [sys.executable, "-c", OVERRUN, target]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    return done.returncode != 0 and "AddressSanitizer" in done.stderr


if __name__ == "__main__":
    sys.exit(main())
