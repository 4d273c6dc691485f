"""Safetensors files of tensors whose names, types and shapes are known before their values."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from peregrine_server.models.loading.tensor_file import DTYPES
from peregrine_server.models.loading.tensor_spec import TensorSpec

INDEX = "model.safetensors.index.json"


def num_bytes(spec: TensorSpec) -> int:
    """Bytes of a tensor of one type."""
    return math.prod(spec.shape) * DTYPES[spec.dtypes[0]].itemsize


def split(tensors: Mapping[str, TensorSpec], max_bytes: int) -> list[dict[str, TensorSpec]]:
    """Files of consecutive tensors, of `max_bytes` at most unless one tensor is larger."""
    files: list[dict[str, TensorSpec]] = []
    left = 0
    for name, spec in tensors.items():
        if not files or num_bytes(spec) > left:
            files.append({})
            left = max_bytes
        files[-1][name] = spec
        left -= num_bytes(spec)
    return files


def write_index(folder: Path, files: Mapping[str, Mapping[str, TensorSpec]]) -> None:
    """Writes which file each tensor is in."""
    total = sum(num_bytes(spec) for tensors in files.values() for spec in tensors.values())
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))


class SafetensorsWriter:
    """One file: its header at once, then every tensor in the header's order. A context manager."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorSpec]) -> None:
        self._left = dict(tensors)
        self._file = path.open("xb")
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, spec in tensors.items():
            start, end = end, end + num_bytes(spec)
            header[name] = {"dtype": spec.dtypes[0], "shape": spec.shape, "data_offsets": (start, end)}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # so that values are aligned
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, values: Tensor) -> None:
        """Appends the next tensor."""
        expected = next(iter(self._left))
        spec = self._left.pop(expected)
        found = (name, tuple(values.shape), values.dtype)
        assert found == (expected, spec.shape, DTYPES[spec.dtypes[0]]), f"{found} in place of {expected} {spec}"
        self._file.write(values.contiguous().view(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._file.close()
        assert kind is not None or not self._left
