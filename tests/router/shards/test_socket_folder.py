"""The temporary folder of the sockets."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peregrine_router.shards.socket_folder import MAX_PATH_BYTES, make_socket_folder


@pytest.fixture
def tmpdir_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Makes a TMPDIR whose path has a number of bytes; pytest's own folders have too long ones."""
    with tempfile.TemporaryDirectory(prefix="p-") as short:

        def make(length: int) -> Path:
            folder = Path(short) / ("x" * (length - len(short) - 1))
            folder.mkdir()
            monkeypatch.setattr(tempfile, "tempdir", str(folder))
            return folder

        yield make


@pytest.mark.parametrize(("length", "is_used"), [(72, True), (73, False), (98, False), (200, False)])
def test_the_folder_is_in_tmpdir_if_sockets_fit(tmpdir_of: object, length: int, is_used: bool) -> None:
    """Else in a folder with a short path; always with room for a socket's name, and closed to other users."""
    assert callable(tmpdir_of)
    folder, made = tmpdir_of(length), make_socket_folder()
    try:
        assert (made.parent == folder) == is_used
        assert len(str(made / "shard-9999.sock")) <= MAX_PATH_BYTES
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    finally:
        made.rmdir()


def test_a_folder_that_cannot_be_made_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable to change."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(OSError, match=r"^no folder for sockets in /proc \(.*\): set TMPDIR to "):
        make_socket_folder()
