"""Temporary folders, of processes that live, end and are killed."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from peregrine_router.launch.temporary_folder import LOCK, PREFIX, make_temporary_folder, remove_temporary_folders

MAKE = (
    "from peregrine_router.launch.temporary_folder import make_temporary_folder as make;"
    "folder = make('falcon'); (folder / 'config.json').write_text('{}'); print(folder, flush=True); input()"
)


@pytest.fixture(autouse=True)
def tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of its own for every test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    remove_temporary_folders()


@pytest.fixture
def make_elsewhere() -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts a process that makes a folder, and lives until its standard input ends."""
    with ExitStack() as stack:

        def make() -> tuple[subprocess.Popen[str], Path]:
            command = [sys.executable, "-c", MAKE]
            process = stack.enter_context(subprocess.Popen(command, stdin=-1, stdout=-1, text=True))
            assert process.stdout is not None
            return process, Path(process.stdout.readline().strip())

        yield make


Maker = Callable[[], tuple[subprocess.Popen[str], Path]]


def test_no_other_user_can_enter_a_folder(tmpdir: Path) -> None:
    """It is empty, in TMPDIR, and its parent closed."""
    folder = make_temporary_folder("falcon")
    assert list(folder.iterdir()) == []
    assert folder.parent.parent == tmpdir
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_folders_are_removed_with_their_process(tmpdir: Path, make_elsewhere: Maker) -> None:
    """At its end, or when it says so."""
    process, folder = make_elsewhere()
    make_temporary_folder("falcon")
    assert len(list(tmpdir.iterdir())) == 2
    remove_temporary_folders()
    assert list(tmpdir.iterdir()) == [folder.parent]
    process.communicate("\n")
    assert list(tmpdir.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmpdir: Path, make_elsewhere: Maker) -> None:
    """Not what one that lives has made, or begins to make."""
    killed, left = make_elsewhere()
    _, kept = make_elsewhere()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    begun = tmpdir / f"{PREFIX}begun"
    begun.mkdir()
    assert left.exists()
    mine = make_temporary_folder("falcon")
    assert {*tmpdir.iterdir()} == {begun, kept.parent, mine.parent}
    assert (kept / "config.json").exists()


def test_many_processes_make_folders_at_once(tmpdir: Path, make_elsewhere: Maker) -> None:
    """Each has its own, none removes another's, and of the killed ones nothing is left."""
    for _ in range(3):
        killed, _ = make_elsewhere()
        killed.kill()
        killed.wait()
    folders = [make_elsewhere()[1] for _ in range(4)]
    assert all((folder / "config.json").exists() for folder in folders)
    assert {*tmpdir.iterdir()} == {folder.parent for folder in folders}


def test_links_are_not_followed(tmpdir: Path, tmp_path: Path) -> None:
    """Anybody may make one in TMPDIR, to a folder of this user with a lock in it, or within a folder to a file."""
    mine = tmp_path / "mine"
    (mine / "falcon").mkdir(parents=True)
    (mine / LOCK).touch()
    (tmpdir / f"{PREFIX}linked").symlink_to(mine)
    other = tmpdir / f"{PREFIX}other"
    other.mkdir()
    (other / LOCK).symlink_to(mine / LOCK)
    make_temporary_folder("falcon")
    assert (mine / "falcon").exists()
    assert (mine / LOCK).exists()
    assert other.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_folders_of_others_are_left(tmpdir: Path) -> None:
    """Whatever is in them."""
    foreign = tmpdir / f"{PREFIX}foreign"
    foreign.mkdir()
    (foreign / LOCK).touch()
    shutil.chown(foreign, 12345)
    make_temporary_folder("falcon")
    assert (foreign / LOCK).exists()


def test_a_file_system_without_locks(tmpdir: Path, make_elsewhere: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are made, and none is taken for one that is left over."""
    _, kept = make_elsewhere()

    def fail(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    assert make_temporary_folder("falcon").exists()
    assert kept.exists()


def test_a_folder_that_cannot_be_made_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable to set."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self")
    with pytest.raises(OSError, match=r"^no temporary folder can be made \([^)]+\): set TMPDIR to a folder with room$"):
        make_temporary_folder("falcon")
