"""Control groups of version 1, made by root for a server and removed after it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving import wait_until

ROOT = Path("/sys/fs/cgroup")


class ControlGroup:
    """A group of one controller."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.via = ("sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$0" "$@"')
        """Command in front of the one that is to run in the group."""

    def __getitem__(self, name: str) -> str:
        return (self.path / name).read_text().strip()

    def __setitem__(self, name: str, value: object) -> None:
        (self.path / name).write_text(str(value))


@contextmanager
def control_group(controller: str) -> Iterator[ControlGroup]:
    """A group without limits; skips the test where none can be made."""
    path = ROOT / controller / f"peregrine-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"{path} cannot be made: {error.strerror}")
    if not (path / "cgroup.procs").exists():
        path.rmdir()
        pytest.skip(f"{ROOT} has no control groups of version 1")
    try:
        yield ControlGroup(path)
    finally:
        assert wait_until(lambda: not (path / "cgroup.procs").read_text(), 10)
        subprocess.run(["rmdir", path], check=True)
