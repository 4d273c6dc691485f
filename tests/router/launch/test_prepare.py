"""Mistakes that are found before a model is loaded."""

import os
import resource
from typing import Any

import pytest

from peregrine_router.launch.model_files import demo_path
from peregrine_router.launch.prepare import (
    check_open_files,
    check_shards,
    hf_overrides,
    max_speculative_rows,
    read_config,
)
from peregrine_router.settings import Settings
from peregrine_server.models.falcon.config import FalconConfig


def test_more_shards_than_cores_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """On a CPU any number of shards works; one more than the cores is said to be slow."""
    cores = len(os.sched_getaffinity(0))
    check_shards(Settings(device="cpu"), cores)
    check_shards(Settings(device="cuda"), cores + 1)
    assert not caplog.messages
    check_shards(Settings(device="cpu"), cores + 1)
    assert caplog.messages == [f"--num-shard {cores + 1} is more than the {cores} CPU cores: fewer are faster"]


def test_too_few_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ would abort the process where it cannot open one."""
    check_open_files()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (63, 4096))
    with pytest.raises(ValueError, match="only 63 files may be open, 64 are needed: raise `ulimit -n`"):
        check_open_files()


def test_speculation_fits_a_captured_batch() -> None:
    """On a GPU no step has more rows than the largest batch, for which there is a CUDA graph."""
    assert max_speculative_rows("cuda", 8) == 8
    assert max_speculative_rows("cpu", 8) == 16


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"rope_factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope_scaling": "dynamic"}, {"rope_type": "dynamic", "factor": 1.0}),
        ({"rope_scaling": "dynamic", "rope_factor": 4.0}, {"rope_type": "dynamic", "factor": 4.0}),
    ],
)
def test_rope_scaling(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """A factor alone scales linearly, a kind alone by 1, as at text-generation-launcher."""
    assert hf_overrides(Settings(**options)).get("rope_scaling", {}) == expected


def test_scaling_that_changes_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A model without rotary positions has nothing to scale."""
    config = read_config(demo_path(), Settings(rope_factor=2.0))
    assert isinstance(config, FalconConfig)
    assert (config.rope_factor, caplog.messages) == (2.0, [])
    read_config(demo_path(), Settings(rope_scaling="linear"))
    assert caplog.messages[0].startswith("--rope-scaling has no effect: ")


def test_weights_on_the_host_are_refused_on_a_cpu() -> None:
    """In one line, before anything is loaded."""
    check_shards(Settings(device="cuda", cpu_offload_gb=4), 1)
    with pytest.raises(ValueError, match=r"^--cpu-offload-gb is for GPUs: [^\n]*leave it out$"):
        check_shards(Settings(device="cpu", cpu_offload_gb=4), 1)
