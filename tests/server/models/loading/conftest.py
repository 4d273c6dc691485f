"""Fixtures: a sound checkpoint of a small Falcon, and its tensors."""

from pathlib import Path

import pytest
from torch import Tensor

from checkpoints import build_model, write_checkpoint


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(build_model("7b-odd").state_dict())
    return tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound checkpoint of two safetensors shards."""
    return write_checkpoint(tmp_path / "model", build_model("7b-odd"), num_shards=2)
