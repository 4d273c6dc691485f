"""Temporary folders that end with their process: what a killed one leaves is removed by the next that makes one.

Each has a lock, which the kernel holds as long as the process lives. Nothing of another user is opened or removed.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "peregrine-model-"
LOCK = "peregrine-process.lock"
"""The lock, beside what the folder was made for."""
_made: dict[Path, int] = {}
"""Folder of this process -> descriptor of its lock."""


def make_temporary_folder(name: str) -> Path:
    """An empty folder of that name, which only this user can enter. Raises OSError with one line."""
    try:
        parent = tempfile.gettempdir()
        _remove_left_over(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # mode 0700
        _made[folder] = _lock(folder)
        (folder / name).mkdir()
    except OSError as error:
        raise OSError(f"no temporary folder can be made ({error.strerror}): set TMPDIR to a folder with room") from None
    return folder / name


@atexit.register
def remove_temporary_folders() -> None:
    """Removes what this process has made."""
    while _made:
        _remove(*_made.popitem())


def _lock(folder: Path) -> int:
    """The descriptor of a lock that ends with this process, however that ends."""
    unlocked = folder / f"{LOCK}.new"
    descriptor = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # A file system without locks: nobody gets one, so nothing is removed.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    unlocked.rename(folder / LOCK)
    return descriptor


def _remove_left_over(parent: str) -> None:
    """Removes this user's folders whose processes live no more."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_left_over(Path(entry.path))


def _remove_if_left_over(folder: Path) -> None:
    if folder.lstat().st_uid != os.geteuid():
        return
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
    else:
        _remove(folder, descriptor)


def _remove(folder: Path, lock: int) -> None:
    # The lock comes last, or what is left if this process is killed meanwhile would have none.
    with suppress(FileNotFoundError):
        for content in folder.iterdir():
            if content.name != LOCK:
                shutil.rmtree(content, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
