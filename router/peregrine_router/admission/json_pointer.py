"""JSON pointers (RFC 6901): the places in a schema that `$ref` and messages name."""

import re
from typing import Any
from urllib.parse import unquote

_NUMBER = re.compile("[0-9]{1,9}")


def escape(name: str) -> str:
    """Escapes one reference token of a pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def look_up(document: Any, reference: str) -> Any:
    """The value at a reference within the document, such as #/$defs/a; None if there is none."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    for token in unquote(reference[1:]).split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list):
            document = document[int(name)] if _NUMBER.fullmatch(name) and int(name) < len(document) else None
        else:
            document = document.get(name) if isinstance(document, dict) else None
    return document
