"""Legacy PyTorch files. torch maps them anew for every tensor, so that the pages of one are dropped before the next."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peregrine_server.models.loading.tensor_file import DTYPES, CheckpointError, TensorInfo

_NESTED = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers keep the weights: Lightning, plain loops, fairseq, DeepSpeed."""
_MAX_NESTING = 3


class TorchFile:
    """A legacy PyTorch checkpoint. Only tensors are unpickled; anything else in it is refused by torch.

    A file from before torch 1.6 is no zip archive and cannot be mapped: its tensors stay in memory until `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_mapped = zipfile.is_zipfile(path)
        self._opened: dict[str, Tensor] = {}
        tensors = self._load()
        self._held = {} if self._is_mapped else tensors
        self.tensors = {name: _describe(tensor) for name, tensor in tensors.items()}

    def expect(self, name: str, row: int, num_rows: int) -> None:
        """A mapping is read as it is touched."""

    def release(self, name: str) -> None:
        self._opened.pop(name, None)

    def close(self) -> None:
        self._opened, self._held = {}, {}

    def copy(self, name: str, row: int, column: int, target: Tensor) -> None:
        if name not in self._opened:
            tensor = (self._held or self._load())[name]
            self._opened[name] = tensor.reshape(-1, 1) if tensor.dim() < 2 else tensor
        num_rows, num_columns = target.shape
        target.copy_(self._opened[name][row : row + num_rows, column : column + num_columns])

    def _load(self) -> dict[str, Tensor]:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=self._is_mapped)
        except Exception as error:  # A damaged or hostile pickle can raise anything.
            if str(error).startswith("Weights only load failed"):
                # torch's own message goes on to say how the pickle's code can be run.
                raise CheckpointError(f"{self.path} holds more than tensors; convert it to safetensors") from None
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = "download it again or convert it to safetensors"
            raise CheckpointError(f"{self.path} is no PyTorch checkpoint ({reason:.200}); {hint}") from None
        tensors = {name: each for name, each in _state_dict(content).items() if isinstance(each, Tensor)}
        if not tensors or not all(isinstance(name, str) for name in tensors):
            raise CheckpointError(f"{self.path} holds something other than named tensors; convert it to safetensors")
        return tensors


def _state_dict(content: Any) -> dict[Any, Any]:
    """The named tensors of what a trainer saved, and what it may have kept beside them. Empty if there are none."""
    # A pickle may contain itself.
    for _ in range(_MAX_NESTING):
        if not isinstance(content, dict):
            break
        content = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), content)
    return content if isinstance(content, dict) else {}


def _describe(tensor: Tensor) -> TensorInfo:
    is_weight = tensor.layout is torch.strided and tensor.dtype in DTYPES.values()
    return TensorInfo(tuple(tensor.shape), tensor.dtype if is_weight else None)
