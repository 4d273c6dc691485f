"""A peer that serves HTTP: a child process on a free port of this machine."""

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.load.client import Answer, OpenAI, run_load
from benchmarks.load.workload import Session

START_SECONDS = 400
"""Seconds within which a server must be healthy: vLLM compiles at its first start."""


class HttpPeer:
    """Any server with OpenAI's /v1/completions that takes token ids, and a /health."""

    def __init__(
        self,
        name: str,
        command: Callable[[int], list[str]],
        missing: str | None,
        *,
        model: str = "falcon",
        environment: Mapping[str, str] = {},
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """`command` takes the port. `missing` says what is not installed; `prepare` makes the files that the server
        reads."""
        self.name, self.missing = name, missing
        self._command, self._environment, self._prepare = command, environment, prepare
        self._api = OpenAI(model)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self, logs: Path) -> None:
        """Starts the server and waits until it is healthy. Raises RuntimeError with the path of its log."""
        self._prepare()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        log = logs / f"{self.name.replace(' ', '-')}.log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                self._command(port),
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} did not start: see {log}")
            time.sleep(0.2)

    def run(self, sessions: list[Session]) -> list[Answer]:
        """Sends all requests at once."""
        return asyncio.run(run_load(self.url, self._api, sessions, None))

    def children(self, module: str) -> list[int]:
        """Process ids of the server's children that run a module."""
        assert self._process is not None
        pids = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if module in Path(f"/proc/{pid}/cmdline").read_text()]

    def stop(self) -> None:
        """Stops the server and its children."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
