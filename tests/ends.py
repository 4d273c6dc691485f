"""Servers that come to an end: what their clients saw, and what they left behind."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serving import ServerProcess, is_alive, wait_until

END_SECONDS = 60
"""Generous: a loaded machine takes several times as long as a quiet one."""
TABLE = "PEREGRINE_FAULTS_TABLE"
"""Environment variable: the file that gets a row of Markdown for each end."""


@dataclass(frozen=True)
class Outcome:
    """The end of a server."""

    code: int
    """Exit code; negative: the number of the signal that killed it."""
    seconds: float
    clients: list[str]
    """How each client's request ended: "whole", the `error_type` of its last event, "cut" if there was none."""
    lines: list[str]
    """Standard error, without the lines of the start."""
    left: list[str]
    """Processes and files that are still there."""


class Stream(threading.Thread):
    """A client that reads a stream to its end."""

    def __init__(self, port: int, **parameters: Any) -> None:
        super().__init__(daemon=True)
        self.started = threading.Event()
        self.end = "cut"
        self._url = f"http://127.0.0.1:{port}/generate_stream"
        self._body = {"inputs": "once", "parameters": {"ignore_eos": True, **parameters}}
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream("POST", self._url, json=self._body, timeout=END_SECONDS) as response:
                for line in response.iter_lines():
                    self.started.set()
                    if '"error_type":"' in line:
                        self.end = line.partition('"error_type":"')[2].partition('"')[0]
                    elif '"generated_text":"' in line:
                        self.end = "whole"
        except httpx.TransportError:
            self.end = "cut"
        self.started.set()


class EndingServer(ServerProcess):
    """A server with a temporary folder of its own, whose end is watched."""

    def __init__(
        self, folder: Path, *options: str, env: Mapping[str, str] | None = None, via: Sequence[str] = (), **more: Any
    ) -> None:
        """`folder`: an empty one. `via`: a command that runs the one behind it."""
        self.program = (*via, *ServerProcess.program)
        self.tmpdir = folder / "tmp"
        self.tmpdir.mkdir(exist_ok=True)
        self.streams: list[Stream] = []
        self._log_path = folder / "stderr"
        with self._log_path.open("w") as log:
            super().__init__(*options, env={"TMPDIR": str(self.tmpdir), **(env or {})}, **{"stderr": log, **more})
        self.ended_at = time.monotonic()

    def open_streams(self, count: int = 1, **parameters: Any) -> list[Stream]:
        """Clients whose streams have begun."""
        new = [Stream(self.port, **{"max_new_tokens": 1900, **parameters}) for _ in range(count)]
        assert all(stream.started.wait(END_SECONDS) for stream in new)
        self.streams += new
        return new

    @property
    def said(self) -> str:
        """Standard error so far."""
        return self._log_path.read_text()

    def family(self) -> list[int]:
        """The process and all below it."""
        return descendants(self.process.pid)

    def end(self, do: Callable[[], object], name: str = "") -> Outcome:
        """Does what ends the server, and waits until nothing of it is left, or for too long."""
        family, start = self.family(), time.monotonic()
        do()
        code = self.process.wait(END_SECONDS)
        seconds = time.monotonic() - start
        self.client.close()
        for stream in self.streams:
            stream.join(END_SECONDS)
        wait_until(lambda: not self._left(family), 5)
        lines = [line.rpartition("\r")[2].strip() for line in self.said.splitlines()]
        lines = [line for line in lines if line.startswith("peregrine: ") or "WARN" in line or "Traceback" in line]
        outcome = Outcome(code, seconds, [stream.end for stream in self.streams], lines, self._left(family))
        if name and TABLE in os.environ:
            with open(os.environ[TABLE], "a") as table:
                table.write(row(name, outcome))
        return outcome

    def send(self, number: int) -> Callable[[], object]:
        """Sends a signal to the router."""
        return lambda: self.process.send_signal(number)

    def stop(self) -> None:
        if self.process.poll() is None:
            for pid in self.family():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.client.close()

    def _left(self, family: list[int]) -> list[str]:
        return [f"process {pid}" for pid in family if is_alive(pid)] + sorted(map(str, self.tmpdir.rglob("*")))


def descendants(pid: int) -> list[int]:
    """A process and all below it; empty if it is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(each for child in children for each in descendants(int(child)))]


def row(name: str, outcome: Outcome) -> str:
    """An end as a row of the table."""
    seen = ", ".join(f"{outcome.clients.count(end)} {end}" for end in sorted(set(outcome.clients))) or "-"
    said = outcome.lines[-1] if outcome.lines else "-"
    left = ", ".join(outcome.left) or "nothing"
    return f"| {name} | {seen} | {outcome.code} | {outcome.seconds:.1f} | {left} | {said} |\n"
