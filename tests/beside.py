"""Tests on several workers (pytest-xdist), except that those marked `alone` run while no other worker runs any.

They measure times or the machine. Two files are locked: a test holds ROOM, shared or alone; DOOR, held while it waits
for that, keeps later tests from getting in ahead of it.
"""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DOOR, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Comes before pytest-timeout's, which does not count the time that a test waits."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with in_turn(DOOR, ROOM, is_alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def in_turn(door: Path, room: Path, *, is_alone: bool) -> Iterator[None]:
    """Waits until nobody is in `room`, or until nobody is alone there, and stays in it."""
    with door.open() as at_door, room.open() as inside:
        fcntl.flock(at_door, fcntl.LOCK_EX)
        fcntl.flock(inside, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(at_door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Closing is not enough: a process that the test has forked has the file, too.
            fcntl.flock(inside, fcntl.LOCK_UN)
