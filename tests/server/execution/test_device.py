"""The device and dtype of a shard."""

import os

import pytest
import torch

from peregrine_server.execution.device import choose_device, choose_dtype

CPU = torch.device("cpu")


def test_more_shards_than_cores_are_refused() -> None:
    """The error names the flag and the number of cores."""
    cores = len(os.sched_getaffinity(0))
    assert choose_device("cpu", 0, cores) == CPU
    with pytest.raises(ValueError, match=f"--num-shard {cores + 1}, but this host has {cores} CPU cores"):
        choose_device("cpu", 0, cores + 1)


def test_a_dtype_that_is_named_is_taken() -> None:
    """Left out, it is one that the device multiplies."""
    assert choose_dtype("float16", CPU) == torch.float16
    assert choose_dtype("auto", CPU) in (torch.bfloat16, torch.float32)
