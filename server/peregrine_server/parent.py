"""A process's ties to the router, its parent: it ends with it, and shows that it lives.

Imports nothing of ours, because the process of the chat template is small.
"""

import ctypes
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

BEAT_SECONDS = 0.5
"""Interval at which a shard writes a byte to its standard output, to show that the process lives."""
_PR_SET_PDEATHSIG = 1
"""The option of prctl(2)."""


def read_line(file: int) -> bytes:
    """Reads a line without buffering what is behind it; shorter if the other end closes. `file`: a descriptor."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(file, 1)):
        line += byte
    return line


def signal_at_parents_death(number: int) -> None:
    """Lets the kernel send this process a signal when its parent ends (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def leave_with_parent(file: int, folder: Path) -> None:
    """Ends this process when the router is gone, even if it was killed, and even while this process waits in a
    collective. `file`: a pipe that only the router holds open. `folder`: the sockets', which nobody else removes then.
    """

    def watch() -> None:
        os.read(file, 1)
        leave(folder)

    # A shard that is stopped (SIGSTOP) would not notice.
    signal_at_parents_death(signal.SIGCONT)
    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def leave(folder: Path) -> NoReturn:
    """Ends this process after the router, and removes the folder of the sockets."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def beat(file: int) -> None:
    """Writes a byte every BEAT_SECONDS from a thread of its own: the process lives, however long its step takes."""

    def run() -> None:
        while True:
            os.write(file, b".")
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=run, daemon=True, name="beat").start()
