"""requirements/*.txt: what `make install` takes, by version and hash."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNPINNED = {"torch", "triton"}
"""Pinned by pyproject.toml: hosts install different builds of them."""


def pinned(*files: str) -> dict[str, str]:
    """Versions by name."""
    text = "".join((ROOT / "requirements" / file).read_text() for file in files)
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("requirements", "files"),
    [
        (PROJECT["dependencies"], ["serve.txt"]),
        (PROJECT["optional-dependencies"]["dev"], ["serve.txt", "dev.txt"]),
    ],
)
def test_every_dependency_is_pinned_to_a_version_that_it_allows(requirements: list[str], files: list[str]) -> None:
    """Otherwise `make install` would take whatever is newest: run make lock."""
    versions = pinned(*files)
    for requirement in map(Requirement, requirements):
        if requirement.name not in UNPINNED:
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("file", ["serve.txt", "dev.txt"])
def test_pins_have_hashes_and_no_addresses(file: str) -> None:
    """Each line is a version or one of its files' SHA-256; where they are downloaded from is the host's choice."""
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    for line in lines:
        assert re.match(r"[\w.-]+==\S+( ;.*)? \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line), line
    assert len(lines) > 2 * len(pinned(file))
