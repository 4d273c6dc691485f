"""An installed package that offers an entry point, as a folder of its own for PYTHONPATH."""

import os
import sys
from pathlib import Path


def plugin_environment(folder: Path, group: str, name: str, value: str) -> dict[str, str]:
    """The environment in which `value` ("module:object", of a module in tests/) is an entry point of `group`."""
    installed = folder / "toy-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    tests = str(Path(__file__).parent)
    return {"PYTHONPATH": os.pathsep.join([str(folder), tests, *filter(None, sys.path)])}
