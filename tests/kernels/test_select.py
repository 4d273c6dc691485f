"""The backend of a device."""

import pytest
import torch

from peregrine_kernels import backend_for
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.reference.backend import ReferenceBackend


def test_backend_for_a_cpu() -> None:
    """A CPU gets the CPU backend; a device without kernels of its own gets the reference."""
    assert isinstance(backend_for(torch.device("cpu")), TorchBackend)
    assert isinstance(backend_for(torch.device("meta")), ReferenceBackend)


def test_an_unknown_name_is_told_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEREGRINE_BACKEND with a typing error is one line that lists the backends."""
    monkeypatch.setenv("PEREGRINE_BACKEND", "cuda")
    with pytest.raises(
        ValueError, match=r"^PEREGRINE_BACKEND is 'cuda': unset it, or name one of cpu, triton, reference$"
    ):
        backend_for(torch.device("cpu"))


def test_a_backend_names_its_kernels() -> None:
    """The operator reads which kernels compute the model; the native ones are for bfloat16 alone."""
    backend = backend_for(torch.device("cpu"))
    assert backend.kernels(torch.float32) == "torch"
    assert backend.kernels(torch.bfloat16) in ("AMX", "AVX512-BF16", "AVX2", "torch")
