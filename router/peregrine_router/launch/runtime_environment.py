"""The machine and the versions on it, for a report of a bug: `peregrine serve --env`."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from peregrine_server.container import available_memory, num_cpus

PACKAGES = ("torch", "triton", "transformers", "tokenizers", "llguidance", "uvicorn", "pyzmq")
NVIDIA_SMI_SECONDS = 10
"""Time after which nvidia-smi is not waited for: a GPU that has fallen off its bus can hold it for minutes."""


def describe_environment() -> Iterator[str]:
    """The lines, under text-generation-launcher's headings where it has one. No value of a variable is among them."""
    yield "Runtime environment:"
    yield f"Target: {platform.machine()}-{platform.system().lower()}"
    yield f"Python version: {platform.python_version()}"
    yield f"Commit sha: {os.environ.get('PEREGRINE_COMMIT', 'N/A')}"
    yield f"Docker label: {os.environ.get('DOCKER_LABEL', 'N/A')}"
    yield f"CPUs: {num_cpus()}"
    yield f"Memory that is free: {available_memory() / 2**30:.1f} GiB"
    yield from (f"{name}: {_version(name)}" for name in ("peregrine", *PACKAGES))
    yield f"nvidia-smi:\n   {nvidia_smi()}"


def nvidia_smi() -> str:
    """The output of nvidia-smi, indented, or N/A."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "N/A"
    try:
        done = subprocess.run([command], capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return "N/A"
    return done.stdout.strip().replace("\n", "\n   ")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "N/A"
