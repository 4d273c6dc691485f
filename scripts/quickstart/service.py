"""Processes that answer HTTP, and waiting for them."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx


class StepError(Exception):
    """A step did not show what it should; the text says what the operator sees instead."""


class Service:
    """A process that listens on a port of loopback; it ends with its block."""

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        """`log`: takes what the process writes."""
        self.port = port
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_up(self, path: str) -> bool:
        """Whether a route answers 200. Raises StepError once the process has ended."""
        if self._process.poll() is not None:
            raise StepError(f"it ended with exit code {self._process.returncode}: {self.last_lines()}")
        with suppress(httpx.TransportError):
            return self.client.get(path).status_code == 200
        return False

    def last_lines(self) -> str:
        """The end of its output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str] | str) -> None:
    """Returns once the condition is true. Raises StepError, which says what is seen `otherwise`, after the seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StepError(f"{otherwise if isinstance(otherwise, str) else otherwise()}, after {seconds:.0f} s")
        time.sleep(0.1)
