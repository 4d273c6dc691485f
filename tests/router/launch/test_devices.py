"""How many shards there are unless the operator says."""

from pathlib import Path

import pytest

from peregrine_router.launch import devices
from peregrine_router.settings import Settings


@pytest.fixture(autouse=True)
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev with four GPUs of NVIDIA."""
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1", "nvidia2", "nvidia3"):
        (tmp_path / name).touch()
    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 4),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, 4),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 4),
        ({"NVIDIA_VISIBLE_DEVICES": "0,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "1", "NVIDIA_VISIBLE_DEVICES": "all"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
    ],
)
def test_visible_gpus(environment: dict[str, str], expected: int) -> None:
    """CUDA's variable wins over the container runtime's, which may name none."""
    assert devices.visible_gpus(environment) == expected


def test_a_shard_a_visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As text-generation-launcher does; --num-shard says otherwise."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert devices.num_shards(Settings()) == 3
    assert devices.num_shards(Settings(num_shard=1)) == 1


def test_one_shard_on_a_cpu(dev: Path) -> None:
    """Whether it was asked for or is all that there is."""
    assert devices.num_shards(Settings(device="cpu")) == 1
    (dev / "nvidiactl").unlink()
    assert devices.num_shards(Settings()) == 1
