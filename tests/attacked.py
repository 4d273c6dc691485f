"""A server under attack: how late its event loop is, how much memory it takes, and how a short stream beside fares."""

import json
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx

from serving import ServerProcess

JSON = {"content-type": "application/json"}
MAX_LATE_SECONDS = 0.2
"""Bound on the 99.9th percentile of a 10 ms timer's delay over that of a calm server. The goal is 0.05 on a machine of
one's own; the clients of these tests share its cores."""
MAX_GROWTH_BYTES = 300 * 10**6
"""Bound on the memory over that of an idle server."""


@dataclass
class Damage:
    """Effects of an attack on the server."""

    seconds: float
    """Time until every request of the attack was answered."""
    late: float
    """99.9th percentile of the delay of a 10 ms timer on the router's event loop, in seconds."""
    growth: int
    """Peak of the router's memory over that before, in bytes."""
    idle_late: float
    """The same of a process beside that does nothing: how late the machine makes any timer."""
    statuses: list[int]
    """Statuses of the answers; 0 for a connection that ended without one."""

    def __str__(self) -> str:
        timers = f"timer {self.late * 1e3:.0f} ms, an idle process's {self.idle_late * 1e3:.0f} ms"
        growth = f"memory +{self.growth / 1e6:.0f} MB"
        return f"{self.seconds:.2f} s, {timers}, {growth}, answers {sorted(set(self.statuses))}"


class AttackedServer(ServerProcess):
    """`peregrine serve` with a timer on its event loop."""

    def __init__(self, *options: str) -> None:
        self._times, self._idle_times = (Path(tempfile.mkstemp(prefix="peregrine-timer-")[1]) for _ in range(2))
        timed = (sys.executable, str(Path(__file__).with_name("timed_serve.py")))
        self.program = (*timed, str(self._times))
        super().__init__(*options)
        self._idle = subprocess.Popen([*timed, str(self._idle_times)])
        self.generate("warm", max_new_tokens=8)
        start = time.monotonic()
        time.sleep(1)
        self.calm_late = lateness(self._times, start, time.monotonic())
        """How late the timer is without an attack, on this machine."""

    def stop(self) -> None:
        super().stop()
        self._idle.kill()
        self._idle.wait()
        self._times.unlink()
        self._idle_times.unlink()

    def attack(self, path: str, body: bytes, at_once: int = 1, times: int = 1) -> Damage:
        """POSTs a body `times` times, `at_once` at a time."""

        def post(_: int) -> int:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
            try:
                connection.request("POST", path, body, JSON)
                answer = connection.getresponse()
                while answer.read(2**16):
                    pass
            except (OSError, HTTPException):
                return 0
            finally:
                connection.close()
            return answer.status

        def run() -> list[int]:
            with ThreadPoolExecutor(at_once) as threads:
                return list(threads.map(post, range(times * at_once)))

        return self.watch(run)

    def watch(self, attack: Callable[[], list[int]]) -> Damage:
        """Runs an attack and measures what it does to the server."""
        before = self._reset_peak()
        start = time.monotonic()
        statuses = attack()
        end = time.monotonic()
        time.sleep(0.1)  # For timers that are late by then.
        late, idle_late = (lateness(times, start, end + 0.1) for times in (self._times, self._idle_times))
        return Damage(end - start, late, self._memory("VmHWM") - before, idle_late, statuses)

    def _reset_peak(self) -> int:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)


def lateness(times: Path, start: float, end: float) -> float:
    """The 99.9th percentile of a timer's delay between two times of `time.monotonic()`."""
    records = struct.iter_unpack("dd", times.read_bytes())
    late = sorted(delay for at, delay in records if at >= start and at - delay <= end)
    return late[min(int(len(late) * 0.999), len(late) - 1)] if late else end - start


class Listener:
    """A client whose short streams tell how long a token takes."""

    def __init__(self, server: ServerProcess) -> None:
        self.gaps: list[float] = []
        self._url = f"http://127.0.0.1:{server.port}/generate_stream"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    @property
    def p99(self) -> float:
        """The 99th percentile of the time between two tokens, in seconds."""
        return sorted(self.gaps)[int(len(self.gaps) * 0.99)] if self.gaps else float("inf")

    def _listen(self) -> None:
        body = {"inputs": "the falcon", "parameters": {"max_new_tokens": 50, "ignore_eos": True}}
        with httpx.Client(timeout=120) as client:
            while not self._is_over.is_set():
                with client.stream("POST", self._url, json=body) as response:
                    self._gaps(response)

    def _gaps(self, response: httpx.Response) -> None:
        previous: float | None = None
        for line in response.iter_lines():
            if line.startswith("data:") and "token" in json.loads(line[5:]):
                now = time.monotonic()
                if previous is not None:
                    self.gaps.append(now - previous)
                previous = now


@contextmanager
def listening(server: ServerProcess) -> Iterator[Listener]:
    """A listener beside the block."""
    listener = Listener(server)
    listener._thread.start()
    try:
        yield listener
    finally:
        listener._is_over.set()
        listener._thread.join()
