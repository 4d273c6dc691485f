"""The devices that models are planned for and measured on: memory, and the peaks of bandwidth and arithmetic."""

from dataclasses import dataclass
from typing import NamedTuple

GIB = 2**30


PCIE_3, PCIE_4, PCIE_5 = 16e9, 32e9, 64e9
"""Bytes a second from the host's memory over 16 lanes."""


class Roof(NamedTuple):
    """A device's peaks: memory bandwidth, dense bfloat16 multiplication, and copies from the host's memory."""

    bytes_per_second: float
    flops_per_second: float
    link_bytes_per_second: float = PCIE_4
    fp8_flops_per_second: float = 0.0
    """Dense multiplication of 8-bit floating-point numbers; 0: it has none."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or so much memory."""

    name: str
    """As `peregrine plan --device` names it."""
    cuda_name: str
    """The part of CUDA's name by which it is known."""
    gigabytes: int
    """Memory in the data sheet, in units of 10**9 bytes as benchmarks count it."""
    gibibytes: float
    """Memory that the driver gives a process, in units of 2**30 bytes; the least that is seen of such cards, with ECC
    where it is on by default."""
    roof: Roof | None
    """None: not known."""
    dtype: str = "bfloat16"
    """The 16-bit type that it multiplies."""

    @property
    def memory_bytes(self) -> int:
        return int(self.gibibytes * GIB)


DEVICES = (
    Device("a10g", "A10G", 24, 22.0, Roof(0.6e12, 70e12)),
    Device("l4", "L4", 24, 22.0, Roof(0.3e12, 121e12, PCIE_4, 242e12)),
    Device("t4", "T4", 16, 14.5, Roof(0.32e12, 65e12, PCIE_3), "float16"),
    Device("rtx4090", "RTX 4090", 24, 23.5, Roof(1.008e12, 165e12, PCIE_4, 330e12)),
    Device("l40s", "L40S", 48, 44.3, Roof(0.864e12, 362e12, PCIE_4, 733e12)),
    Device("l40", "L40", 48, 44.3, Roof(0.864e12, 181e12, PCIE_4, 362e12)),
    Device("a100-40g", "A100-SXM4-40GB", 40, 39.4, Roof(1.555e12, 312e12)),
    Device("a100-40g-pcie", "A100-PCIE-40GB", 40, 39.4, Roof(1.555e12, 312e12)),
    Device("a100-80g", "A100", 80, 79.1, Roof(2.039e12, 312e12)),
    Device("a100-80g-pcie", "A100 80GB PCIe", 80, 79.1, Roof(1.935e12, 312e12)),
    Device("h100", "H100", 80, 79.1, Roof(3.35e12, 989e12, PCIE_5, 1979e12)),
    Device("h100-pcie", "H100 PCIe", 80, 79.1, Roof(2.0e12, 756e12, PCIE_5, 1513e12)),
    Device("h200", "H200", 141, 139.7, Roof(4.8e12, 989e12, PCIE_5, 1979e12)),
)
"""Peaks as in NVIDIA's data sheets (A10G: Amazon's variant of the A10, as AWS gives it)."""

ROOFS = {
    device.cuda_name: device.roof
    for device in sorted(DEVICES, key=lambda device: len(device.cuda_name), reverse=True)
    if device.roof is not None
}
"""Part of a device's name -> its peaks, the longer names first."""


def roof_of(cuda_name: str) -> Roof | None:
    """The peaks of a device by the name that CUDA gives it; None if they are not known, as of a CPU."""
    return next((roof for part, roof in ROOFS.items() if part in cuda_name), None)
