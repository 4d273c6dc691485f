"""Exit codes of `peregrine serve`; docs/operations.md has them for operators."""

import signal

STOPPED = 0
"""Stopped by a signal; every request got its answer."""
FAILED = 1
"""The server could not start, or its shards failed. One line on standard error says why."""
WRONG_OPTIONS = 2
"""An option is wrong."""
CUT_OFF = 3
"""Stopped by a signal; requests were still running when their time was over, and ended with an error."""


def interrupted(number: int) -> int:
    """Exit code after a signal before the server was ready, as shells report it: 128 + its number."""
    return 128 + signal.Signals(number)
