"""Tests that need a GPU. `make test-gpu` runs them and fails where there is none; elsewhere they are skipped."""

import os

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    """The first CUDA device, for every test of this folder."""
    if os.environ.get("TRITON_INTERPRET") != "0":
        pytest.skip("needs a GPU: run make test-gpu where there is one")
    if not torch.cuda.is_available():
        pytest.fail("make test-gpu needs a CUDA device, and torch finds none: see docs/gpu.md")
    return torch.device("cuda", 0)
