"""`peregrine serve` as a process, for tests that run in an environment of their own: standard library only."""

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "server/peregrine_server/demo"
MODEL = "peregrine/falcon-demo"
KEY = "secret"
COMMAND = os.environ.get("PEREGRINE", str(ROOT / ".venv/bin/peregrine"))
START_SECONDS = 90


@dataclass(frozen=True)
class Server:
    """A server with the demo model, behind the API key `KEY`; its root and the base URL that OpenAI's clients take."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except urllib.error.URLError:
            return False


@contextmanager
def serve(*options: str) -> Iterator[Server]:
    """A server that runs until the context ends. Raises RuntimeError with its log if it does not start."""
    server = Server(free_port())
    command = [COMMAND, "serve", "--port", str(server.port), "--api-key", KEY, *options]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            if not _starts(server, process):
                log.seek(0)
                raise RuntimeError(f"the server did not start: {log.read()}")
            yield server
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _starts(server: Server, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if server.is_healthy():
            return True
        time.sleep(0.1)
    return False
