"""`peregrine serve` as a real process, on a small random Falcon or the demo model."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from checkpoints import build_model, write_checkpoint
from exposition import parse_metrics

START_SECONDS = 90
"""Generous: several start at once on a slow machine. The promise of 10 s has a test of its own."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def write_model(path: Path, variant: str = "7b") -> Path:
    """A random checkpoint with a tokenizer of single bytes, id 0 to 255."""
    write_checkpoint(path, build_model(variant, vocab_size=256, eos_token_id=255, bos_token_id=255))
    return write_byte_tokenizer(path)


def write_byte_tokenizer(path: Path) -> Path:
    """A tokenizer whose token i is byte i."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    return path


class ServerProcess:
    """A running server and a client for it."""

    program: Sequence[str] = (str(Path(sys.executable).with_name("peregrine")),)
    """The command `peregrine`, or what stands for it."""

    def __init__(
        self,
        *options: str,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> None:
        self.port = free_port()
        command = [*self.program, "serve", "--port", str(self.port), *options]
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen(command, stderr=stderr, text=True, start_new_session=True, env=environment)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            assert self.process.poll() is None, f"the server ended: {self.process.communicate()[1]}"
            assert time.monotonic() < deadline, "the server is not ready"
            time.sleep(0.05)

    def is_healthy(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def generate(self, inputs: str, **parameters: Any) -> httpx.Response:
        return self.client.post("/generate", json={"inputs": inputs, "parameters": parameters})

    def stream(self, inputs: str, **parameters: Any) -> Generator[dict[str, Any]]:
        """The events of /generate_stream as they arrive."""
        body = {"inputs": inputs, "parameters": parameters}
        with self.client.stream("POST", "/generate_stream", json=body) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels."""
        return parse_metrics(self.client.get("/metrics").text)

    def metric(self, name: str) -> float:
        """One of them; KeyError if it is not there."""
        return self.metrics()[name]

    def shard_pids(self) -> list[int]:
        """The worker processes of this server."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def failure(*options: str, port: int | None = None, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Exit code and the lines that speak of an error, of a server that cannot start."""
    command = [str(Path(sys.executable).with_name("peregrine")), "serve", "--port", str(port or free_port()), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_SECONDS, check=False, env={**os.environ, **(env or {})}
    )
    lines = [line.rpartition("\r")[2].strip() for line in done.stderr.splitlines()]
    return done.returncode, [line for line in lines if line.startswith("peregrine") and ": loading" not in line]


@contextmanager
def occupied_port() -> Iterator[int]:
    """A port where somebody else listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Any, seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
