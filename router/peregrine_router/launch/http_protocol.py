"""HTTP/1.1 with limits on what comes before the body: uvicorn's own protocol has none."""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
"""Request line and headers; the usual servers take 8 to 64 KiB."""
MAX_HEADERS = 100
HEAD_SECONDS = 10.0
"""From the first byte, or the connection, until the headers are complete."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are too long (431) or take too long (408)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_in_head = True
        self._is_refused = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects and says nothing is not waited for."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of any part of any request on the connection."""
        if self._is_refused:
            return
        if self._is_in_head:
            self._start_clock()
            self._head_bytes += len(data)
        super().data_received(data)
        # Only if they have not ended yet: the bytes may be mostly body.
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_clock()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(431)
        elif not self._is_refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request may follow."""
        if not self._is_refused:
            super().on_message_complete()
        self._is_in_head = True

    def _start_clock(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse, 408)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int) -> None:
        self._stop_clock()
        self._is_refused = True
        text, kind, phrase = {
            408: (f"The headers did not arrive within {HEAD_SECONDS:.0f} seconds", "timeout", b"Request Timeout"),
            431: (
                f"The headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADERS}",
                "headers_too_large",
                b"Request Header Fields Too Large",
            ),
        }[status]
        body = msgspec.json.encode({"error": text, "error_type": kind})
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase, len(body)) + body)
        self.transport.close()
