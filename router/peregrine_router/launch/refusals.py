"""Answers to connections whose requests never reach a route."""

from collections.abc import Iterable

import msgspec

MAX_HEAD_BYTES = 64 * 2**10
"""Maximum size of request line and headers; common servers accept 8 to 64 KiB."""
MAX_HEADERS = 100
"""Maximum number of headers."""
HEAD_SECONDS = 10.0
"""Timeout from the connection, or a later request's first byte, to the end of its headers."""

_REFUSALS = {
    400: ("Bad Request", "bad_request", "The request is not valid HTTP/1.1"),
    408: ("Request Timeout", "timeout", f"The headers did not arrive within {HEAD_SECONDS:.0f} seconds"),
    429: ("Too Many Requests", "overloaded", "Your address has too many connections (--max-connections-per-address)"),
    431: (
        "Request Header Fields Too Large",
        "headers_too_large",
        f"The headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADERS}, or the trailers are too large",
    ),
    503: ("Service Unavailable", "overloaded", "The server has too many connections (--max-connections)"),
}
"""Status -> (phrase, error type, text)."""
_RETRY = {429: b"retry-after: 1\r\n", 503: b"retry-after: 1\r\n"}


def refusal(status: int) -> bytes:
    """The whole response, the connection's last."""
    phrase, kind, text = _REFUSALS[status]
    body = msgspec.json.encode({"error": text, "error_type": kind})
    head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n"
    return head % (status, phrase.encode(), len(body), _RETRY.get(status, b"")) + body


def early_refusal(headers: Iterable[tuple[bytes, bytes]], body: bytes, *, is_last: bool) -> bytes:
    """The whole response to a request without a permit. `is_last`: the connection ends with it."""
    lines = [b"HTTP/1.1 429 Too Many Requests", *(name + b": " + value for name, value in headers)]
    if is_last:
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", body))
