"""Devices by name and by size."""

import pytest

from peregrine_router.hardware import GIB
from peregrine_router.planning import devices
from peregrine_router.planning.devices import find_device


def test_a_device_is_found_by_its_name() -> None:
    """In any case."""
    assert find_device("A100-80G").cuda_name == "A100"


@pytest.mark.parametrize("name", ["48", "48gib", "48 GiB", "48.0"])
def test_a_number_is_so_many_gib(name: str) -> None:
    """A device of which nothing is known but its memory."""
    device = find_device(name)
    assert (device.name, device.memory_bytes, device.roof) == ("48 GiB", 48 * GIB, None)


def test_a_cpu_has_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte."""
    monkeypatch.setattr(devices, "available_memory", lambda: 12_345_678_901)
    assert find_device("cpu").memory_bytes == 12_345_678_901


@pytest.mark.parametrize("name", ["b200", "-3", "0", "nan", "inf", ""])
def test_an_unknown_device_is_told_with_those_that_are_known(name: str) -> None:
    """One line."""
    with pytest.raises(ValueError, match=r"is not known: choose one of a10g, .* cpu, or a number of GiB$"):
        find_device(name)
