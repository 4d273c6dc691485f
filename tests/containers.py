"""Containers of the images under test, as a careful host runs them: read-only, without capabilities or a network.

They run in a network of their own that has loopback alone, in which port 80 needs no privilege, as Docker sets it.
`scripts/image/test.sh` builds the images and names the engine.
"""

import ctypes
import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from raw_http import Connection, request

ENGINE = shlex.split(os.environ.get("PEREGRINE_IMAGE_ENGINE", ""))
"""podman and where its images are."""
CPU_IMAGE = "localhost/peregrine:cpu"
CPU_ARCHIVE = Path(__file__).parents[1] / ".image" / "cpu.tar"
"""The CPU image as an OCI archive: its layers are compressed as a registry keeps them."""
CUDA_IMAGE = "localhost/peregrine:cuda"
PORT = 80
START_SECONDS = 90
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_HARDENED = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none"]
_LIKE_DOCKER = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--tmpfs", "/tmp", "--shm-size", "256m"]


def engine(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the engine's command, where its monitor may leave the file by which it notes a container that was killed."""
    work = CPU_ARCHIVE.parent
    return subprocess.run([*ENGINE, *arguments], capture_output=True, text=True, check=check, timeout=120, cwd=work)


def inspect(kind: str, name: str) -> dict[str, Any]:
    """All that the engine knows of a container or an image."""
    found: dict[str, Any] = json.loads(engine(kind, "inspect", name).stdout)[0]
    return found


class Container:
    """A running container; removed at the end."""

    def __init__(self, *arguments: str, options: tuple[str, ...] = (), image: str = CPU_IMAGE) -> None:
        self.name = f"peregrine-{uuid4().hex[:8]}"
        engine("run", "--detach", "--name", self.name, *_HARDENED, *_LIKE_DOCKER, *options, image, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine("rm", "--force", "--time", "0", self.name, check=False)

    def wait_healthy(self) -> Self:
        """By the image's HEALTHCHECK."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            assert inspect("container", self.name)["State"]["Running"], self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.5)
        return self

    def is_healthy(self) -> bool:
        return engine("healthcheck", "run", self.name, check=False).returncode == 0

    def exec(self, *command: str) -> str:
        """The output of a command in the container."""
        return engine("exec", self.name, *command).stdout

    def python(self, code: str) -> str:
        return self.exec("python", "-c", code)

    def log(self) -> str:
        """Both streams."""
        done = engine("logs", self.name, check=False)
        return done.stdout + done.stderr

    def exit_code(self) -> int:
        """The code with which the container ends; waits for it."""
        engine("wait", "--interval", "100ms", self.name)
        code: int = inspect("container", self.name)["State"]["ExitCode"]
        return code

    def status(self) -> dict[str, str]:
        """/proc/PID/status of the first process."""
        text = Path(f"/proc/{self.pid()}/status").read_text()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    def pid(self) -> int:
        number: int = inspect("container", self.name)["State"]["Pid"]
        return number

    def connect(self, port: int = PORT) -> Connection:
        """A connection within the container's network."""
        with _network_of(self.pid()):
            return Connection(port, timeout=60)

    def post(self, body: bytes, path: bytes) -> bytes:
        """The whole answer to a request."""
        with self.connect() as connection:
            connection.send(request(body, b"Connection: close", path=path))
            return connection.read()


@contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """This thread in the network of a process: what it opens there stays there. Needs root."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{pid}/ns/net") as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(network: int) -> None:
    if _LIBC.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a container's network")
