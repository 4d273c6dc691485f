"""Logging: each event is one readable line or one JSON object. Prompts and generated text are never logged."""

import io
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

QUIET = ("uvicorn.error", "asyncio", "httpx", "filelock", "urllib3")
"""Libraries whose messages below WARNING are dropped."""
RATE_LIMITED = ("opentelemetry.", "urllib3.")
"""Libraries that say again and again that a collector of traces is gone."""
RATE_LIMIT_SECONDS = 60.0
"""Time between two lines of one level from a module of theirs."""
MAX_LINE_CHARACTERS = 65_536
"""Characters of a line without an end that are kept."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
log = logging.getLogger("peregrine")
log_context: ContextVar[Mapping[str, str]] = ContextVar("log_context", default={})  # noqa: B039 - never changed
"""Fields of every line that is logged for the request being handled: its id, and those of its trace."""


def configure_logging(*, json_output: bool = False, level: int = logging.INFO) -> None:
    """Sends the process's log to stderr; with `json_output`, whatever else is written there too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_output else LineFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if json_output:
        sys.stderr = JsonLines(handler)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class JsonLines(io.TextIOBase):
    """Standard error where the log is JSON: a line that is written past the log, a shard's for example, is an event."""

    def __init__(self, handler: logging.Handler) -> None:
        """`handler`: of the log."""
        self._handler = handler
        self._pending = ""

    def write(self, text: str) -> int:
        """Logs the lines that `text` completes."""
        *lines, pending = (self._pending + text).split("\n")
        self._pending = pending[-MAX_LINE_CHARACTERS:]
        for line in filter(None, map(str.strip, lines)):
            # Not the logger, whose level would hide what the server says of itself.
            self._handler.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None))
        return len(text)

    def writable(self) -> bool:
        """Yes."""
        return True


class RateLimit(logging.Filter):
    """Drops what a library of `RATE_LIMITED` has said within RATE_LIMIT_SECONDS."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, int], float] = {}
        """(logger, level) -> when it may speak again."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if not record.name.startswith(RATE_LIMITED):
            return True
        now, key = time.monotonic(), (record.name, record.levelno)
        if now < self._next.get(key, 0.0):
            return False
        self._next[key] = now + RATE_LIMIT_SECONDS
        return True


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO peregrine_router.observability.request_log: done id=... input_tokens=7 ...`"""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {record.getMessage().rstrip()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """TGI's keys: timestamp, level, message, target; the event's own fields follow at the same level."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "level": record.levelname,
            "message": record.getMessage(),
            "target": record.name,
            **_fields(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(event).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of the request being handled, and those that the caller passed as `extra={"fields": {...}}`."""
    fields = getattr(record, "fields", {})
    return {**log_context.get(), **(fields if isinstance(fields, dict) else {})}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
