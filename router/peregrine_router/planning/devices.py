"""The device that is planned for: a GPU by name, an amount of memory, or this machine's CPU."""

import math

from peregrine_router.hardware import DEVICES, GIB, Device
from peregrine_server.container import available_memory

CPU = "cpu"


def find_device(name: str) -> Device:
    """The device of a name, or of a number of GiB. Raises ValueError with one line."""
    if name.lower() == CPU:
        return cpu(available_memory())
    for device in DEVICES:
        if name.lower() == device.name:
            return device
    gibibytes = _number(name.lower().removesuffix("gib").strip())
    if gibibytes is None:
        names = ", ".join(device.name for device in DEVICES)
        raise ValueError(f"--device {name} is not known: choose one of {names}, cpu, or a number of GiB")
    return Device(f"{gibibytes:g} GiB", "", 0, gibibytes, None)


def cpu(available: int) -> Device:
    """A CPU with so many bytes of free memory."""
    return Device(CPU, "", 0, available / GIB, None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
