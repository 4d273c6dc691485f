"""Reader of safetensors files with `pread`.

Unlike a mapping, it adds nothing to the process's memory, and a failing disk is an error instead of a signal.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peregrine_server.models.errors import AGAIN
from peregrine_server.models.loading.tensor_file import (
    DTYPES,
    CheckpointError,
    TensorInfo,
    expect_bytes,
    read_bytes,
    read_rows,
)

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""


class SafetensorsFile:
    """Eight bytes of header length, a JSON header, then every tensor, row-major, without gaps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        try:
            self.tensors = self._read_header()
        except CheckpointError:
            self.close()
            raise

    def release(self, name: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        os.close(self._descriptor)

    def expect(self, name: str, row: int, num_rows: int) -> None:
        info = self.tensors[name]
        row_bytes = info.num_bytes // max(info.shape[0], 1)
        expect_bytes(self._descriptor, info.offset + row * row_bytes, num_rows * row_bytes)

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        info = self.tensors[name]
        assert info.dtype is not None
        is_in_place = target.device.type == "cpu" and target.dtype == info.dtype and target.stride(1) == 1
        read = target if is_in_place else torch.empty(target.shape, dtype=info.dtype, pin_memory=target.is_cuda)
        width, item = math.prod(info.shape[1:]), info.dtype.itemsize
        start = info.offset + (row * width + column) * item
        read_rows(self._descriptor, self.path, read, start, width * item)
        if not is_in_place:
            target.copy_(read)

    def _read_header(self) -> dict[str, TensorInfo]:
        file_size = os.fstat(self._descriptor).st_size
        if file_size < 8:
            raise CheckpointError(f"{self.path} is truncated: {file_size} bytes hold no header; {AGAIN}")
        length = int.from_bytes(read_bytes(self._descriptor, self.path, 8, 0), "little")
        if length > min(file_size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{self.path} is truncated or no safetensors file ({length} bytes of header); {AGAIN}"
            )
        header = read_bytes(self._descriptor, self.path, length, 8)
        try:
            return dict(self._parse(json.loads(header), 8 + length, file_size))
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CheckpointError(f"{self.path} has a damaged header; {AGAIN}") from None

    def _parse(self, header: dict[str, Any], data_start: int, file_size: int) -> Iterator[tuple[str, TensorInfo]]:
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        end = 0
        for name, entry in sorted(entries, key=lambda entry: tuple(entry[1]["data_offsets"])):
            start, stop = entry["data_offsets"]
            shape = tuple(entry["shape"])
            if not all(type(size) is int and size >= 0 for size in (start, stop, *shape)) or start != end:
                raise CheckpointError(f"{self.path}: tensor {name!r:.200} does not follow the one before it; {AGAIN}")
            dtype = DTYPES.get(entry["dtype"])
            if dtype and stop - start != math.prod(shape) * dtype.itemsize:
                raise CheckpointError(f"{self.path}: shape and size of tensor {name!r:.200} disagree; {AGAIN}")
            yield name, TensorInfo(shape, dtype, data_start + start)
            end = stop
        if data_start + end != file_size:
            problem = "is truncated" if data_start + end > file_size else "is too long"
            raise CheckpointError(f"{self.path} {problem}: {file_size} bytes, not {data_start + end}; {AGAIN}")
