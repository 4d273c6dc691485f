"""The device and dtype of a shard."""

import os

import pytest
import torch

from peregrine_server.execution.device import choose_device, choose_dtype

CPU = torch.device("cpu")


def test_more_shards_than_cores_share_them() -> None:
    """Any number of shards runs on a CPU."""
    cores = len(os.sched_getaffinity(0))
    assert choose_device("cpu", cores, cores + 1) == CPU


def test_more_shards_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the flag and the number of devices: two shards do not fit into the memory of one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda", 1, 2) == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="--num-shard 3, but this host has 2 CUDA devices"):
        choose_device("cuda", 2, 3)


def test_a_dtype_that_is_named_is_taken() -> None:
    """Left out, it is one that the device multiplies."""
    assert choose_dtype("float16", CPU) == torch.float16
    assert choose_dtype("auto", CPU) in (torch.bfloat16, torch.float32)
