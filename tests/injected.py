"""Faults put into a server's processes: code that Python runs before the program of each."""

import os
from pathlib import Path
from textwrap import dedent

SHARD = "peregrine_server.worker"
"""The module that a shard runs."""


def injected(folder: Path, code: str, module: str = SHARD) -> dict[str, str]:
    """The environment in which processes that run `module` run `code` first. `folder`: an empty one."""
    folder.mkdir()
    body = dedent(code)
    (folder / "sitecustomize.py").write_text(f"import sys\nif {module!r} in sys.orig_argv:\n    exec({body!r})\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
