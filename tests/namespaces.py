"""Machines for tests: network namespaces on one bridge. Needs root, and the commands `ip` (iproute2) and `curl`."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self


def can_make_namespaces() -> bool:
    """Whether this user can make machines here."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("curl") is None:
        return False
    try:
        with Namespaces(1):
            return True
    except subprocess.CalledProcessError:
        return False


class Namespaces:
    """Network namespaces that reach each other at 10.77.0.1, 10.77.0.2, ... through their interface eth0."""

    def __init__(self, num: int) -> None:
        self._names = [f"pg{os.getpid()}-{index}" for index in range(num)]
        self._bridge = f"pgb{os.getpid()}"

    def command(self, index: int, command: Sequence[str]) -> list[str]:
        """The command, run on machine `index`."""
        return ["ip", "netns", "exec", self._names[index], *command]

    def cut(self, index: int) -> None:
        """Pulls the cable of a machine."""
        _ip("-n", self._names[index], "link", "set", "eth0", "down")

    def __enter__(self) -> Self:
        try:
            self._make()
        except subprocess.CalledProcessError:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        for index, name in enumerate(self._names):
            cable = f"pgv{os.getpid()}-{index}"
            _ip("netns", "add", name)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", cable, "master", self._bridge, "up")
            _ip("-n", name, "addr", "add", f"10.77.0.{index + 1}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def _remove(self) -> None:
        """Removes what there is of them."""
        for command in (*(["netns", "del", name] for name in self._names), ["link", "del", self._bridge]):
            subprocess.run(["ip", *command], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
