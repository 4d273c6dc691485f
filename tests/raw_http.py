"""HTTP by hand: bytes that no client library would send."""

import contextlib
import json
import re
import socket
import time

HEAD = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"inputs": "the", "parameters": {"max_new_tokens": 2}}'
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")


def request(body: bytes = BODY, *headers: bytes, path: bytes = b"/generate") -> bytes:
    """A whole request with Content-Length."""
    lines = [*headers, b"Content-Length: %d" % len(body)]
    return HEAD.replace(b"/generate", path) + b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunks(*parts: bytes) -> bytes:
    """A chunked body up to the last chunk's head, behind which trailers may follow."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n"


class Connection:
    """A raw connection."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.received = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends what the server takes; it may have closed."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.socket.sendall(data)

    def flood(self, piece: bytes, size: int) -> int:
        """Sends a piece again and again; the number of bytes that the server took before it closed."""
        sent = 0
        with contextlib.suppress(OSError):
            for _ in range(0, size, len(piece)):
                self.socket.sendall(piece)
                sent += len(piece)
        return sent

    def read(self, until: bytes = b"") -> bytes:
        """All that has come up to `until`, or the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while (not until or until not in self.received) and (data := self.socket.recv(65536)):
                self.received += data
        return self.received

    def is_closed_within(self, seconds: float) -> bool:
        """Whether the server ends the connection in time."""
        start = time.monotonic()
        self.socket.settimeout(seconds)
        try:
            self.read()
        except TimeoutError:
            return False
        return time.monotonic() - start < seconds


def talk(port: int, data: bytes, timeout: float = 10.0) -> bytes:
    """All that a raw connection is answered until it is closed."""
    with Connection(port, timeout) as connection:
        connection.send(data)
        return connection.read()


def statuses(answer: bytes) -> list[int]:
    """Statuses of the answers in what was received."""
    return [int(status) for status in _STATUS.findall(answer)]


def error_type(answer: bytes) -> str:
    """`error_type` of an answer with an error."""
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error_type"])
