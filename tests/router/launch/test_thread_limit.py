"""The check that threads can start."""

import threading

import pytest

from peregrine_router.launch.thread_limit import can_start_threads


def test_threads_that_start_end_again() -> None:
    """None is left."""
    before = threading.active_count()
    assert can_start_threads()
    assert threading.active_count() <= before + 16


def test_threads_that_cannot_start_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises RuntimeError then."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert not can_start_threads()
