"""A peer without HTTP: a library in a child process with its own environment, without the cost of a server.

The child (benchmarks/peers/drivers/) prints `> ready`. Then it answers each line of JSON, a list of {prompt,
max_new_tokens}, with `> ` and a line of JSON: of each request the seconds, from the line's arrival, of its tokens.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.load.client import Answer
from benchmarks.load.workload import Session


class InProcessPeer:
    """A library that takes all requests of a load at once, since it has no clients."""

    def __init__(self, name: str, python: Path | None, driver: Path, arguments: tuple[str, ...]) -> None:
        """`python`: the interpreter; None is this one."""
        self.name = name
        self._command = [str(python or sys.executable), str(driver), *arguments]
        is_there = python is None or python.exists()
        self.missing = None if is_there else f"no {python}: run scripts/peers.sh {python.parts[-3] if python else ''}"
        self._process: subprocess.Popen[str] | None = None

    def start(self, logs: Path) -> None:
        """Starts the child and waits until its model is loaded. Raises RuntimeError with the path of its log."""
        log = logs / f"{self.name.replace(' ', '-')}.log"
        with log.open("w") as file:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )
        if self._read() != "ready":
            self.stop()
            raise RuntimeError(f"{self.name} did not start: see {log}")

    def run(self, sessions: list[Session]) -> list[Answer]:
        """Runs one load. Raises RuntimeError if the child has died."""
        assert self._process is not None
        assert self._process.stdin is not None
        turns = [session.turns[0] for session in sessions]
        sent = time.perf_counter()
        load = [{"prompt": turn.message, "max_new_tokens": turn.max_new_tokens} for turn in turns]
        self._process.stdin.write(json.dumps(load) + "\n")
        self._process.stdin.flush()
        seconds: list[list[float]] = json.loads(self._read() or "null")
        if seconds is None:
            raise RuntimeError(f"{self.name} died: see its log")
        return [
            Answer(len(turn.message), sent, [sent + at for at in times], sent + max(times, default=0.0))
            for turn, times in zip(turns, seconds, strict=True)
        ]

    def stop(self) -> None:
        """Ends the child by closing its input."""
        if self._process is None:
            return
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _read(self) -> Any:
        """The child's next protocol line: libraries print to the same stream."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        return None
