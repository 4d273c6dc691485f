"""A checkpoint's file and its tensors, as loaders see them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
"""safetensors' names of the types that weights, quantized or not, may have."""

AGAIN = "download it again"


class CheckpointError(ValueError):
    """The weights cannot be loaded. One line for the operator: which file, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as a file's header describes it."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    """None for a type that no weight has."""
    offset: int = 0
    """Position of its first byte in the file; safetensors only."""


class TensorFile(Protocol):
    """One file of a checkpoint."""

    path: Path
    tensors: dict[str, TensorInfo]

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        """Copies the region of `target`'s shape [R, C] at (row, column) of a tensor into `target`, casting.

        A vector counts as one column. Raises CheckpointError when the file cannot be read.
        """

    def release(self) -> None:
        """Gives back the memory that copying a tensor took; to be called after the last copy from it."""

    def close(self) -> None:
        """Nothing can be copied afterwards."""
