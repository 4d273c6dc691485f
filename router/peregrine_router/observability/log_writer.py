"""Standard error without waiting: a reader that is slow, stuck or gone never holds the server."""

import contextlib
import io
import os
import select
import threading
import time

MAX_PENDING_CHARACTERS = 2**20
"""Characters that may wait to be written; more are dropped by the line. About 5,000 lines of the request log."""
CLOSE_SECONDS = 1.0
"""Time that the last lines get at the end."""


class LogWriter(io.TextIOBase):
    """A text file whose writes return at once: a thread writes what was written, or drops it if it cannot.

    A pipe blocks its writer when it is full, and fails when its reader is gone.
    """

    def __init__(self, file: int) -> None:
        """`file`: the descriptor that the thread writes to."""
        self.num_dropped = 0
        """Lines that were dropped."""
        self._file = file
        self._pending: list[str] = []
        self._num_pending = 0
        """Characters that wait, those that the thread is writing included."""
        self._num_reported = 0
        """Dropped lines that a line of the log has told."""
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def write(self, text: str) -> int:
        """Queues `text`, or drops it if too much waits. Never blocks."""
        with self._changed:
            if self._num_pending + len(text) > MAX_PENDING_CHARACTERS:
                self.num_dropped += text.count("\n")
            elif text:
                self._pending.append(text)
                self._num_pending += len(text)
                self._changed.notify_all()
        return len(text)

    def drain(self, seconds: float = CLOSE_SECONDS) -> None:
        """Waits until everything is written, or for `seconds`. `flush`, which loggers call for each line, does not."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._num_pending and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def fileno(self) -> int:
        """The descriptor, by which a progress bar finds the terminal's width."""
        return self._file

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._file)

    def writable(self) -> bool:
        """Yes."""
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending:
                    self._changed.wait()
                text, self._pending = "".join(self._pending), []
            num_dropped = self.num_dropped
            is_written = self._try_write(text + _report(num_dropped - self._num_reported))
            with self._changed:
                self._num_pending -= len(text)
                if is_written:
                    self._num_reported = num_dropped
                else:
                    self.num_dropped += text.count("\n")
                self._changed.notify_all()

    def _try_write(self, text: str) -> bool:
        """Writes all of it, however long that takes. False if the reader is gone."""
        data = memoryview(text.encode(errors="backslashreplace"))
        try:
            while data:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._file, data) :]
                    continue
                # The descriptor was made non-blocking by whoever shares it.
                select.select([], [self._file], [])
        except OSError:
            return False
        return True


def _report(num_dropped: int) -> str:
    """A line about dropped lines, behind the first that is written after them; nothing if there are none."""
    return f"peregrine: {num_dropped} lines of the log were dropped: nobody read them in time\n" if num_dropped else ""
