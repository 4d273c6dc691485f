"""The turns of tests on several workers."""

import threading
from pathlib import Path

import pytest

from beside import in_turn


@pytest.mark.parametrize(
    ("is_alone", "other_is_alone", "expected"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_who_runs_beside_whom(is_alone: bool, other_is_alone: bool, expected: bool, tmp_path: Path) -> None:
    """Tests run beside one another, and none beside one that is alone; each comes in when the others are out."""
    door, room = tmp_path / "door", tmp_path / "room"
    door.touch()
    room.touch()
    entered = threading.Event()

    def other() -> None:
        with in_turn(door, room, is_alone=other_is_alone):
            entered.set()

    thread = threading.Thread(target=other)
    with in_turn(door, room, is_alone=is_alone):
        thread.start()
        assert entered.wait(0.2) == expected
    thread.join(10)
    assert entered.is_set()
