"""Mistakes that are found before a model is loaded."""

import os
import socket

import pytest

from peregrine_router.launch.prepare import SEND_BUFFER_BYTES, bind, check_shards, max_speculative_rows
from peregrine_router.settings import Settings


def test_send_buffers_are_small() -> None:
    """Every connection inherits the listener's buffer: a client that does not read is noticed early."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES


def test_more_shards_than_cores_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """On a CPU any number of shards works; one more than the cores is said to be slow."""
    cores = len(os.sched_getaffinity(0))
    check_shards(Settings(device="cpu", num_shard=cores))
    check_shards(Settings(device="cuda", num_shard=cores + 1))
    assert not caplog.messages
    check_shards(Settings(device="cpu", num_shard=cores + 1))
    assert caplog.messages == [f"--num-shard {cores + 1} is more than the {cores} CPU cores: fewer are faster"]


def test_speculation_fits_a_captured_batch() -> None:
    """On a GPU no step has more rows than the largest batch, for which there is a CUDA graph."""
    assert max_speculative_rows("cuda", 8) == 8
    assert max_speculative_rows("cpu", 8) == 16
