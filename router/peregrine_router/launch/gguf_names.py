"""Names of GGUF files: sets of them, and the types of weights that they tell."""

import re
from collections.abc import Iterable

from peregrine_server.models.loading.gguf_header import BY_NAME, FOUR_BITS

SUFFIX = ".gguf"
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""A file of a set that llama.cpp has split."""
_TYPES = [
    re.compile(rf"(?<![A-Z0-9]){name}(?!_?\d)", re.IGNORECASE)
    for name in (*FOUR_BITS, *(name for name in BY_NAME if name not in FOUR_BITS))
]
"""Types that are read; those of 4 bits, which are kept as they are, come first."""


def first_files(names: Iterable[str]) -> list[str]:
    """The GGUF files among `names`, of each set the first; those first that their names say can be read."""
    sets: dict[str, str] = {}
    for name in sorted(names):
        if name.endswith(SUFFIX):
            sets.setdefault(set_pattern(name), name)
    return sorted(sets.values(), key=_rank)


def set_pattern(name: str) -> str:
    """The file names, as a pattern of the shell, of a GGUF file, or of the set that it is a part of."""
    part = PART.fullmatch(name)
    return f"{part['stem']}-*-of-{part['count']}{SUFFIX}" if part else name


def _rank(name: str) -> int:
    return next((rank for rank, pattern in enumerate(_TYPES) if pattern.search(name)), len(_TYPES))
