"""Errors of a body that is JSON of the wrong shape, in the words of a client's reader."""

from collections.abc import Mapping, Sequence
from typing import Any


def first_error(errors: Sequence[Mapping[str, Any]], body: Any) -> str:
    """Describes the first wrong field by its path and pydantic's message. `errors`: pydantic's, at least one.

    A value that may have several forms has errors of each: the one that got furthest is what the client meant.
    """
    field = errors[0]["loc"][:2]
    furthest = max((error for error in errors if error["loc"][:2] == field), key=lambda error: len(error["loc"]))
    return f"`{_path(furthest, body)}`: {furthest['msg']}"


def _path(error: Mapping[str, Any], body: Any) -> str:
    """The place of an error within the body, without the names of forms that pydantic puts between."""
    parts = []
    for part in error["loc"][1:]:
        if _holds(body, part):
            parts.append(str(part))
            body = body[part]
    if error["type"] == "missing":
        parts.append(str(error["loc"][-1]))
    return ".".join(parts) or "body"


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value
