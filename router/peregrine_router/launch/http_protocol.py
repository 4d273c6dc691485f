"""HTTP/1.1 with limits on the size and time of request heads, which uvicorn's own protocol does not have."""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
"""Maximum size of request line and headers; common servers accept 8 to 64 KiB."""
MAX_HEADERS = 100
"""Maximum number of headers."""
HEAD_SECONDS = 10.0
"""Timeout from the connection, or a later request's first byte, to the end of its headers."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are too large (431) or take too long (408)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_in_head = True
        self._is_refused = False
        self._head_timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timeout: a client that connects and sends nothing is closed too."""
        super().connection_made(transport)
        self._start_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timeout."""
        self._stop_timeout()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of a head, and passes data on to the parser."""
        if self._is_refused:
            return
        if self._is_in_head:
            self._start_timeout()
            self._head_bytes += len(data)
        super().data_received(data)
        # Checked after parsing: if the headers ended in this data, the rest of it is body.
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """Called by the parser at the start of a request."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser at the end of the headers: refuses them or passes the request on."""
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_timeout()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(431)
        elif not self._is_refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Passes a part of the body on, unless the request was refused."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of a request; the next head may follow."""
        if not self._is_refused:
            super().on_message_complete()
        self._is_in_head = True

    def _start_timeout(self) -> None:
        if self._head_timeout is None:
            self._head_timeout = self.loop.call_later(HEAD_SECONDS, self._refuse, 408)

    def _stop_timeout(self) -> None:
        if self._head_timeout is not None:
            self._head_timeout.cancel()
            self._head_timeout = None

    def _refuse(self, status: int) -> None:
        self._stop_timeout()
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
