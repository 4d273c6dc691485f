"""Where results are saved, and a description of the machine they came from."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
INSTRUCTION_SETS = {"amx": "amx_tile", "avx512": "avx512_bf16"}
"""Instruction set -> its flag in /proc/cpuinfo."""


def machine() -> dict[str, Any]:
    """Hardware, versions and commit, which figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def instruction_set() -> str:
    """The C kernels' library that such a CPU runs; results of different libraries are kept apart."""
    flags = Path("/proc/cpuinfo").read_text()
    return next((name for name, flag in INSTRUCTION_SETS.items() if flag in flags), "avx2")


def cpu_name() -> str:
    """The CPU's name in /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def write_json(path: Path, data: object) -> None:
    """Writes indented JSON, so that a diff of two runs is readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
