"""Logging: each event is one readable line or one JSON object. Prompts and generated text are never logged."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

QUIET = ("uvicorn.error", "asyncio", "httpx", "filelock", "urllib3")
"""Libraries whose messages below WARNING are dropped."""


def configure_logging(*, json_output: bool = False, level: int = logging.INFO) -> None:
    """Sends the process's log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_output else LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO peregrine_router.observability.request_log: done id=... input_tokens=7 ...`"""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
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
    """The fields that the caller passed as `extra={"fields": {...}}`."""
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, dict) else {}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
