"""A checkpoint's file and its tensors, as loaders see them."""

import math
import os
from contextlib import suppress
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

    @property
    def num_bytes(self) -> int:
        """Bytes of its elements; 0 for a type that no weight has."""
        return math.prod(self.shape) * self.dtype.itemsize if self.dtype else 0


def expect_bytes(descriptor: int, offset: int, count: int) -> None:
    """Has the disk begin to read bytes of a file: one thread then reads cold pages at 2.6 GB/s, without it at 0.8 (a
    virtual disk)."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_WILLNEED)


def read_rows(descriptor: int, path: Path, rows: Tensor, offset: int, row_bytes: int) -> None:
    """Fills rows [R, C], on the host, each contiguous, with rows of a matrix that has `row_bytes` a row, from byte
    `offset` of the file.

    Raises CheckpointError when the file cannot be read.
    """
    data = rows.view(torch.uint8).numpy()
    if data.shape[1] == row_bytes and rows.is_contiguous():
        _read(descriptor, path, data.reshape(-1).data, offset)
        return
    for index, row in enumerate(data):
        _read(descriptor, path, row.data, offset + index * row_bytes)


def read_bytes(descriptor: int, path: Path, count: int, offset: int) -> bytearray:
    """Bytes of a file. Raises CheckpointError."""
    data = bytearray(count)
    _read(descriptor, path, memoryview(data), offset)
    return data


def _read(descriptor: int, path: Path, data: memoryview, offset: int) -> None:
    while data:
        try:
            count = os.preadv(descriptor, [data], offset)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if count == 0:
            raise CheckpointError(f"{path} ended early: it was changed while it was read")
        data, offset = data[count:], offset + count


class TensorFile(Protocol):
    """One file of a checkpoint."""

    path: Path
    tensors: dict[str, TensorInfo]

    def expect(self, name: str, row: int, num_rows: int) -> None:
        """Tells that whole rows of a tensor will be copied, so that the disk begins to read all of them."""

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        """Copies the region of `target`'s shape [R, C] at (row, column) of a tensor into `target`, casting.

        A vector counts as one column. Threads may copy different tensors at once. Raises CheckpointError when the file
        cannot be read.
        """

    def release(self, name: str) -> None:
        """Gives back the memory that copying a tensor took; to be called after the last copy from it."""

    def close(self) -> None:
        """Nothing can be copied afterwards."""
