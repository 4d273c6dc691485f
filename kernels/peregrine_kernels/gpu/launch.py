"""One launch of a Triton kernel as a value: the launchers make it, the compiler's report reads it.

Since both use the same value, the kernels compiled ahead of time are those that are launched, argument for argument.
"""

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Tensor | int | float | None]
"""Pointers, sizes and strides. A pointer that a variant has no use for is None."""
Constants = dict[str, int | float | bool | str]
"""Compile-time constants of a kernel (`tl.constexpr`)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel and everything it is started with, by the names of its parameters."""

    kernel: Any
    """A function under `triton.jit`."""
    grid: tuple[int, ...]
    arguments: Arguments
    constants: Constants
    num_warps: int
    num_stages: int = 1
    is_contracted: bool = True
    """Whether a product and the sum it goes into may be rounded as one."""
    max_registers: int | None = None
    """Maximum registers of a thread; the rest spills to local memory."""

    def __call__(self) -> None:
        """Starts it, unless there is nothing to do."""
        if prod(self.grid):
            self.kernel[self.grid](**self.arguments, **self.constants, **self.options)

    @property
    def options(self) -> dict[str, int | bool]:
        """The compiler's options."""
        options: dict[str, int | bool] = {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": self.is_contracted,
        }
        return options if self.max_registers is None else {**options, "maxnreg": self.max_registers}


@cache
def capability_of(device: torch.device) -> int:
    """90 for sm_90; of a device without CUDA, the least that is served."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
