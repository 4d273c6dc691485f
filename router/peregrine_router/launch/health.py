"""`peregrine health`: whether the server of this container can make a token now. For a HEALTHCHECK.

Imports little: it runs every few seconds beside the server.
"""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_SECONDS = 4
DEFAULT_PORT = "3000"
REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
COMMAND_LINE = Path("/proc/1/cmdline")
"""The container's first process: the server, or what starts it and has its options."""


def health(command_line: Path = COMMAND_LINE) -> int:
    """Asks GET /health on this machine; 0 if the answer is 200, else 1 and a line on stderr."""
    port = port_of(command_line.read_bytes().decode(errors="replace").split("\0"))
    try:
        answer = first_line(int(port))
    except (OSError, ValueError) as error:
        answer = str(error)
    if " 200 " in answer:
        return 0
    print(f"peregrine health: port {port}: {answer or 'no answer'}", file=sys.stderr)
    return 1


def port_of(arguments: Sequence[str]) -> str:
    """The port that a server with these arguments listens on: a flag, else PORT, else the default."""
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in ("--port", "-p"):
            return value
        if flag.startswith("--port="):
            return flag.removeprefix("--port=")
    return os.environ.get("PORT") or DEFAULT_PORT


def first_line(port: int) -> str:
    """The status line of the answer. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(REQUEST)
        return connection.makefile("rb").readline().decode(errors="replace").strip()
