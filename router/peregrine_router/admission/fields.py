"""Types of lists and maps in request bodies: the first wrong item ends their validation.

pydantic reports every wrong item by default: 2 MB of them took 16 s and 3 GB.
"""

import math
import re
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from peregrine_router.admission.parameters import Float

T = TypeVar("T")
MAX_OBJECTS = 2048
"""Most objects in one list, such as messages, tools or parts of a message: OpenAI's limit on messages."""
Items = Annotated[list[T], Field(fail_fast=True)]
"""Texts or numbers. Rules limit how many there are, because the operator sets that."""
Objects = Annotated[list[T], Field(fail_fast=True, max_length=MAX_OBJECTS)]
_TOKEN_ID = "[0-9]{1,10}"
"""Pattern of a token id in text."""


def at_most(count: int) -> BeforeValidator:
    """Refuses a map of more entries before any is looked at."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > count:
            raise PydanticCustomError("too_long", "at most {count} entries are supported", {"count": count})
        return given

    return BeforeValidator(check)


def _check_bias(given: Any) -> Any:
    """Raises PydanticCustomError for the first entry that is no bias of a token: dictionaries have no `fail_fast`."""
    for token, bias in given.items() if isinstance(given, dict) else ():
        if not re.fullmatch(_TOKEN_ID, token) or type(bias) not in (int, float) or not math.isfinite(bias):
            raise PydanticCustomError(
                "bias", "token ids must be mapped to numbers. Given: {given}", {"given": token[:32]}
            )
    return given


LogitBias = Annotated[dict[Annotated[str, Field(pattern=f"^{_TOKEN_ID}$")], Float], BeforeValidator(_check_bias)]
"""Token id, as text -> bias."""
