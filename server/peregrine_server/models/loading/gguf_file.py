"""GGUF files as checkpoints: their tensors under the names, and with the rows in the order, of the published model."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from peregrine_server.models.errors import ConfigError, UnsupportedModel
from peregrine_server.models.loading.gguf_blocks import dequantize
from peregrine_server.models.loading.gguf_header import FOUR_BITS, GgufTensor, read_header
from peregrine_server.models.loading.gguf_layout import GgufLayout, blocks_name
from peregrine_server.models.loading.slices import Slice, whole
from peregrine_server.models.loading.tensor_file import CheckpointError, TensorInfo, expect_bytes, read_rows

_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16}


class _View(NamedTuple):
    """A tensor as it is shown: as blocks, uint8[rows, bytes], or as the values that they stand for."""

    tensor: GgufTensor
    rows: Slice
    is_raw: bool


class GgufFile:
    """A linear's weight of 4 bits is shown as its blocks, "<linear>.q4_0", for a format to keep; all else as values."""

    def __init__(self, path: Path, layout: GgufLayout) -> None:
        self.path = path
        try:
            views = dict(_view(layout, *each) for each in read_header(path).tensors.items())
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (ConfigError, UnsupportedModel) as error:
            at = "" if str(path) in str(error) else f"{path}: "
            raise CheckpointError(f"{at}{error}") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        self._views = views
        self.tensors = {name: _describe(view) for name, view in views.items()}

    def expect(self, name: str, row: int, num_rows: int) -> None:
        view = self._views[name]
        row_bytes = view.tensor.row_bytes
        for run in view.rows.runs:
            first, last = max(run.target, row), min(run.target + run.length, row + num_rows)
            if first < last:
                start = view.tensor.offset + (run.source + first - run.target) * row_bytes
                expect_bytes(self._descriptor, start, (last - first) * row_bytes)

    def release(self, name: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        os.close(self._descriptor)

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        view = self._views[name]
        for run in view.rows.runs:
            first, last = max(run.target, row), min(run.target + run.length, row + len(target))
            if first < last:
                self._copy(view, run.source + first - run.target, column, target[first - row : last - row])

    def _copy(self, view: _View, row: int, column: int, target: Tensor) -> None:
        """The same of consecutive rows of the file."""
        tensor, width = view.tensor, target.shape[1]
        size = 1 if view.is_raw else tensor.type.size
        block_bytes = 1 if view.is_raw else tensor.type.num_bytes
        first = column // size
        blocks = torch.empty((len(target), (-(-(column + width) // size) - first) * block_bytes), dtype=torch.uint8)
        row_bytes = tensor.row_bytes if len(tensor.shape) > 1 else tensor.type.num_bytes
        read_rows(self._descriptor, self.path, blocks, tensor.offset + row * row_bytes + first * block_bytes, row_bytes)
        if not view.is_raw:
            blocks = dequantize(tensor.type.name, blocks)
        target.copy_(blocks[:, column - first * size :][:, :width])


def _view(layout: GgufLayout, name: str, tensor: GgufTensor) -> tuple[str, _View]:
    place = layout.place(name)
    if len(tensor.shape) == 1 and tensor.type.size > 1:
        raise UnsupportedModel(f"tensor {name!r:.200} is a vector of {tensor.type.name}, which is not read")
    is_raw = place.is_linear and tensor.type.name in FOUR_BITS
    shown = blocks_name(place.name.removesuffix(".weight"), tensor.type.name) if is_raw else place.name
    return shown, _View(tensor, place.rows or whole(tensor.shape[0]), is_raw)


def _describe(view: _View) -> TensorInfo:
    if view.is_raw:
        return TensorInfo((*view.tensor.shape[:-1], view.tensor.row_bytes), torch.uint8)
    return TensorInfo(view.tensor.shape, _FLOATS.get(view.tensor.type.name, torch.float32))
