"""The report of the machine that `--env` makes."""

import os
from pathlib import Path

import pytest

from peregrine_router.launch.runtime_environment import describe_environment


def test_versions_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, CPUs and what nvidia-smi prints, under its headings in text-generation-launcher."""
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho NVIDIA A10G\necho two\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    text = "\n".join(describe_environment())
    assert text.startswith("Runtime environment:\nTarget: ")
    assert text.endswith("nvidia-smi:\n   NVIDIA A10G\n   two")
    assert "\npyzmq: " in text


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of a bug is public."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PATH", "")
    text = "\n".join(describe_environment())
    assert "hf_secret" not in text
    assert text.endswith("nvidia-smi:\n   N/A")
