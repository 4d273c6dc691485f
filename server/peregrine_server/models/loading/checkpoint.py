"""The tensors in a checkpoint's files, read a region at a time and never more.

safetensors files are read with `pread`: unlike a mapping, it adds nothing to the process's memory, and a failing disk
is an error instead of a signal. Legacy PyTorch files are mapped by torch, anew for every tensor, so that the pages of
one are dropped before the next.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' names of the types that weights may have."""

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLES = ("model.safetensors", "pytorch_model.bin")
_AGAIN = "download it again"


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


def open_checkpoint(path: Path) -> list[TensorFile]:
    """Opens every weight file of the model in directory `path` and validates its header.

    safetensors are preferred to legacy files. Raises CheckpointError.
    """
    for index, single in zip(_INDEXES, _SINGLES, strict=True):
        if (path / index).exists():
            return _open_indexed(path / index)
        if (path / single).exists():
            return [_open(path / single)]
    raise CheckpointError(f"{path} holds no weights: expected one of {', '.join(_SINGLES + _INDEXES)}; download them")


def _open_indexed(index: Path) -> list[TensorFile]:
    weight_map = _read_weight_map(index)
    files: list[TensorFile] = []
    try:
        for shard in sorted(set(weight_map.values())):
            file = _open(index.parent / shard)
            files.append(file)
            missing = sorted(name for name in weight_map if weight_map[name] == shard and name not in file.tensors)
            if missing:
                raise CheckpointError(
                    f"{file.path} lacks {missing[0]!r:.200}, which {index.name} places there; {_AGAIN}"
                )
    except CheckpointError:
        close_all(files)
        raise
    return files


def close_all(files: list[TensorFile]) -> None:
    """Closes what `open_checkpoint` opened."""
    for file in files:
        file.close()


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
    except OSError as error:
        raise CheckpointError(f"{index} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{index} is not a weight index; {_AGAIN}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; {_AGAIN}")
    for file in weight_map.values():
        # A file of another directory is never a part of this model.
        if not isinstance(file, str) or file != Path(file).name or file in ("", ".", ".."):
            raise CheckpointError(f"{index} names the file {file!r:.80}, which is not a plain file name")
    return weight_map


def _open(path: Path) -> TensorFile:
    if not path.exists():
        raise CheckpointError(f"{path} is missing; download it")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


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

    def release(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        os.close(self._descriptor)

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        info = self.tensors[name]
        assert info.dtype is not None
        num_rows, num_columns = target.shape
        width = math.prod(info.shape[1:])
        item = info.dtype.itemsize
        staging = torch.empty((num_rows, num_columns), dtype=info.dtype)
        data = staging.view(-1).view(torch.uint8).numpy().data
        start = info.offset + (row * width + column) * item
        if num_columns == width:
            self._read(data, start)
        else:
            row_bytes = num_columns * item
            for index in range(num_rows):
                self._read(data[index * row_bytes : (index + 1) * row_bytes], start + index * width * item)
        target.copy_(staging)

    def _read(self, data: memoryview, offset: int) -> None:
        while data:
            try:
                count = os.preadv(self._descriptor, [data], offset)
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error.strerror}") from None
            if count == 0:
                raise CheckpointError(f"{self.path} ended early: it was changed while it was read")
            data, offset = data[count:], offset + count

    def _read_header(self) -> dict[str, TensorInfo]:
        file_size = os.fstat(self._descriptor).st_size
        if file_size < 8:
            raise CheckpointError(f"{self.path} is truncated: {file_size} bytes hold no header; {_AGAIN}")
        length_bytes = bytearray(8)
        self._read(memoryview(length_bytes), 0)
        length = int.from_bytes(length_bytes, "little")
        if length > min(file_size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{self.path} is truncated or no safetensors file ({length} bytes of header); {_AGAIN}"
            )
        header = bytearray(length)
        self._read(memoryview(header), 8)
        try:
            return dict(self._parse(json.loads(header), 8 + length, file_size))
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CheckpointError(f"{self.path} has a damaged header; {_AGAIN}") from None

    def _parse(self, header: dict[str, Any], data_start: int, file_size: int) -> Iterator[tuple[str, TensorInfo]]:
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        end = 0
        for name, entry in sorted(entries, key=lambda entry: tuple(entry[1]["data_offsets"])):
            start, stop = entry["data_offsets"]
            shape = tuple(entry["shape"])
            if not all(type(size) is int and size >= 0 for size in (start, stop, *shape)) or start != end:
                raise CheckpointError(f"{self.path}: tensor {name!r:.200} does not follow the one before it; {_AGAIN}")
            dtype = DTYPES.get(entry["dtype"])
            if dtype and stop - start != math.prod(shape) * dtype.itemsize:
                raise CheckpointError(f"{self.path}: shape and size of tensor {name!r:.200} disagree; {_AGAIN}")
            yield name, TensorInfo(shape, dtype, data_start + start)
            end = stop
        if data_start + end != file_size:
            problem = "is truncated" if data_start + end > file_size else "is too long"
            raise CheckpointError(f"{self.path} {problem}: {file_size} bytes, not {data_start + end}; {_AGAIN}")


class TorchFile:
    """A legacy PyTorch checkpoint. Only tensors are unpickled; anything else in it is refused by torch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[str, Tensor] | None = None
        self.tensors = {name: _describe(tensor) for name, tensor in self._load().items()}

    def release(self) -> None:
        self._opened = None

    def close(self) -> None:
        self.release()

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        if self._opened is None or self._opened[0] != name:
            tensor = self._load()[name]
            self._opened = name, tensor.view(tensor.shape[0], -1) if tensor.dim() == 1 else tensor
        num_rows, num_columns = target.shape
        target.copy_(self._opened[1][row : row + num_rows, column : column + num_columns])

    def _load(self) -> dict[str, Tensor]:
        try:
            tensors = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # A damaged or hostile pickle can raise anything.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = "download it again or convert it to safetensors"
            raise CheckpointError(f"{self.path} is no PyTorch checkpoint ({reason:.200}); {hint}") from None
        if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise CheckpointError(f"{self.path} holds something other than named tensors; convert it to safetensors")
        return tensors


def _describe(tensor: Tensor) -> TensorInfo:
    is_weight = tensor.layout is torch.strided and tensor.dtype in DTYPES.values()
    return TensorInfo(tuple(tensor.shape), tensor.dtype if is_weight else None)
