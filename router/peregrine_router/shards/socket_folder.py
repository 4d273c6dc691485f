"""The temporary folder of the sockets between router and shards."""

import tempfile
from pathlib import Path

MAX_PATH_BYTES = 107
"""Longest path of a Unix domain socket on Linux (unix(7): `sun_path` has 108 bytes, one of them for the NUL)."""
LONGEST_NAME = "/peregrine-xxxxxxxx/shard-9999.sock"
SHORT_FOLDER = "/tmp"
"""Where the folder is if paths in TMPDIR are too long."""


def make_socket_folder() -> Path:
    """Makes a folder that only this user can enter, in TMPDIR if a socket's path fits. Raises OSError with one line."""
    parent = tempfile.gettempdir()
    if len(parent.encode()) + len(LONGEST_NAME) > MAX_PATH_BYTES:
        parent = SHORT_FOLDER
    try:
        return Path(tempfile.mkdtemp(prefix="peregrine-", dir=parent))  # mode 0700
    except OSError as error:
        raise OSError(f"no folder for sockets in {parent} ({error.strerror}): set TMPDIR to a short path") from None
