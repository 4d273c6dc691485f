"""Legacy PyTorch files, in the forms in which trainers saved them."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import build_model, write_checkpoint
from falcons import load, model_context
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.torch_file import TorchFile


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return dict(build_model("7b-odd").state_dict())


def read(file: TorchFile, name: str) -> Tensor:
    shape = file.tensors[name].shape
    out = torch.empty(shape if len(shape) == 2 else (*shape, 1))
    file.copy(name, 0, 0, out)
    return out.view(shape)


def test_a_file_from_before_torch_1_6(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """A file that is no zip archive, which torch cannot map, has the same tensors."""
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    file = TorchFile(tmp_path / "pytorch_model.bin")
    assert all(torch.equal(read(file, name), tensor) for name, tensor in tensors.items())
    file.close()


@pytest.mark.parametrize(
    "keys", [["state_dict"], ["model"], ["module"], ["model_state_dict"], ["state_dict", "model", "module"]]
)
def test_weights_beside_a_trainers_own_state(keys: list[str], tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """The weights are found under the key that a trainer keeps them under, its own state beside them."""
    content: Any = OrderedDict(tensors)
    for key in keys:
        content = {"epoch": 3, "optimizer": {"lr": [0.1]}, key: content}
    torch.save(content, tmp_path / "pytorch_model.bin")
    file = TorchFile(tmp_path / "pytorch_model.bin")
    assert file.tensors.keys() == tensors.keys()


def test_a_pickle_that_contains_itself(tmp_path: Path) -> None:
    """A dictionary that is its own state is refused, not followed for ever."""
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="convert it to safetensors"):
        TorchFile(tmp_path / "pytorch_model.bin")


def test_entries_that_are_no_tensors_are_left_out(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """Notes of a trainer among the weights are passed over, as in transformers."""
    torch.save({**tensors, "epoch": 3, "notes": None}, tmp_path / "pytorch_model.bin")
    assert TorchFile(tmp_path / "pytorch_model.bin").tensors.keys() == tensors.keys()


@pytest.mark.parametrize("content", [{0: torch.zeros(1)}, [torch.zeros(1)], {"a": "b"}, torch.zeros(1)])
def test_tensors_without_names(content: Any, tmp_path: Path) -> None:
    """Anything but a dictionary of named tensors is refused."""
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="something other than named tensors; convert it to safetensors"):
        TorchFile(tmp_path / "pytorch_model.bin")


def test_code_in_a_pickle_is_not_advised(tmp_path: Path) -> None:
    """The error of a file with other objects says to convert it, and not how to run their code."""
    torch.save({"a": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds more than tensors; convert it to safetensors$"):
        TorchFile(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "base_model.model.", "module._orig_mod."])
def test_names_that_a_wrapper_prefixed(prefix: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """Names as DistributedDataParallel, torch.compile, Lightning and peft save them are the model's."""
    write_checkpoint(tmp_path, build_model("7b-odd"), "new", "bin")
    torch.save({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "pytorch_model.bin")
    load(tmp_path, model_context(torch.float32))
