"""Copies from the host's memory that go on beside what the device computes."""

from typing import Any, Protocol

import torch
from torch import Tensor

Arrival = Any
"""The end of a copy, to be waited for."""


class Copies(Protocol):
    """Copies in the order in which they are started, each ordered against the computing by the device itself: the host
    does not wait."""

    def keep(self, num_bytes: int) -> Tensor:
        """uint8[num_bytes] of the host's memory, to copy from. Raises ValueError, one line."""

    def start(self, target: Tensor, source: Tensor) -> Arrival:
        """Copies once all is computed that has been launched by now."""

    def wait(self, arrival: Arrival) -> None:
        """Lets nothing that is launched from now on begin before a copy has ended."""


class CudaCopies:
    """Copies on a stream of their own, from memory whose pages stay in place."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def keep(self, num_bytes: int) -> Tensor:
        # torch's own pinned memory is rounded up to a power of two.
        kept = torch.empty(num_bytes, dtype=torch.uint8)
        if int(torch.cuda.cudart().cudaHostRegister(kept.data_ptr(), num_bytes, 0)) != 0:
            raise ValueError(
                f"the host could not keep {num_bytes / 2**30:.1f} GiB more in place for --cpu-offload-gb: lower it"
            )
        return kept

    def start(self, target: Tensor, source: Tensor) -> Arrival:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait(self, arrival: Arrival) -> None:
        torch.cuda.current_stream().wait_event(arrival)


class HostCopies:
    """Copies at once, where the device is the host: in tests."""

    def keep(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)

    def start(self, target: Tensor, source: Tensor) -> Arrival:
        target.copy_(source)

    def wait(self, arrival: Arrival) -> None:
        """Nothing is under way."""


def copies_to(device: torch.device) -> Copies:
    """The copies to a device."""
    return CudaCopies(device) if device.type == "cuda" else HostCopies()


def bytes_per_second(device: torch.device, num_bytes: int = 2**28, repetitions: int = 4) -> float:
    """The measured speed of copies to CUDA `device`, the best of some."""
    copies = CudaCopies(device)
    source, target = copies.keep(num_bytes), torch.empty(num_bytes, dtype=torch.uint8, device=device)
    seconds: list[float] = []
    for _ in range(repetitions):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        copies.wait(copies.start(target, source))
        end.record()
        end.synchronize()
        seconds.append(float(start.elapsed_time(end)) / 1e3)
    torch.cuda.cudart().cudaHostUnregister(source.data_ptr())
    return num_bytes / min(seconds)
