"""Copies from the host to the device that the host does not wait for."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy of `array` on the device, not waited for; on a CPU a view of the array itself."""
    host = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return host
    # From pageable memory CUDA copies only once the stream has drained: the next step would wait for this one.
    return host.pin_memory().to(device, non_blocking=True)
