"""The Dockerfile and compose.yaml agree with the rest of the repository. `make test-image` tests the image itself."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from peregrine_router.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVER: dict[str, Any] = COMPOSE["services"]["server"]


@pytest.mark.parametrize("package", ["torch", "triton"])
def test_the_image_has_the_version_that_the_package_pins(package: str) -> None:
    """In every stage that installs it."""
    pinned = re.findall(rf'"{package}==([\d.]+)', (ROOT / "pyproject.toml").read_text())
    in_image = re.findall(rf"ARG {package.upper()}_VERSION=(\S+)", DOCKERFILE)
    assert in_image
    assert set(in_image) == set(pinned)


def test_what_the_build_copies_is_sent_to_it() -> None:
    """.dockerignore lets through every file of this repository that a COPY names."""
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert any(source == name or Path(source).match(name) or source.startswith(f"{name}/") for name in sent)


def test_every_file_that_compose_mounts_exists() -> None:
    """Docker would make an empty folder in its place."""
    volumes = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    mounted = [volume.partition(":")[0] for volume in volumes if volume.startswith("./")]
    assert mounted
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_compose_confines_the_server() -> None:
    """As tests/image runs it: read-only, without capabilities; open to this machine alone."""
    assert SERVER["read_only"] is True
    assert SERVER["cap_drop"] == ["ALL"]
    assert SERVER["tmpfs"] == ["/tmp"]
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_compose_waits_until_streams_are_done() -> None:
    """Its patience is longer than the server's default for running requests."""
    grace: int = Settings.model_fields["graceful_termination_timeout"].default
    assert int(SERVER["stop_grace_period"].removesuffix("s")) > grace
