"""Signals that stop the server, at any moment from its first to its last."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from peregrine_router.launch.exit_codes import interrupted
from peregrine_router.launch.temporary_folder import remove_temporary_folders
from peregrine_router.observability.log_writer import LogWriter

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Ctrl-C, an orchestrator, a terminal that closes, Ctrl-\\. All stop the server alike."""


class StopSignals:
    """Ends the process at once until `attach`, as there are at most temporary folders; from then on calls a handler."""

    def __init__(self, log: LogWriter) -> None:
        """`log`: standard error."""
        self._log = log
        self.first: signal.Signals | None = None
        """The first signal that was received since `attach`."""
        self.handle: Callable[[], object] = _ignore
        """Called on the event loop with each signal since `attach`."""
        # `nohup` has it ignored.
        self._numbers = [number for number in NUMBERS if not _is_ignored_hangup(number)]
        for number in self._numbers:
            signal.signal(number, self._leave)

    def attach(self, handle: Callable[[], object]) -> None:
        """Delivers signals to `handle`, on the running event loop."""
        self.handle = handle
        for number in self._numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._receive, number)

    def detach(self) -> None:
        """Ignores signals: the server has ended, and its exit code is decided."""
        for number in self._numbers:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def describe(self) -> str:
        """One line on a start that `first` has ended."""
        assert self.first is not None
        return f"peregrine: stopped by {self.first.name} before it was ready"

    def _receive(self, number: signal.Signals) -> None:
        self.first = self.first or number
        self.handle()

    def _leave(self, number: int, frame: object) -> NoReturn:
        self.first = signal.Signals(number)
        print(self.describe(), file=sys.stderr)
        remove_temporary_folders()
        self._log.drain()
        # Not SystemExit, which would wait for the threads of a download.
        os._exit(interrupted(number))


def _is_ignored_hangup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _ignore() -> None:
    pass
