"""The CPU backends to be tested: torch's ops everywhere, the native kernels where this machine runs them."""

import pytest

from peregrine_kernels import Backend
from peregrine_kernels.cpu import CpuBackend
from peregrine_kernels.cpu_native import NativeBackend
from peregrine_kernels.native import library


def torch_backend() -> Backend:
    return CpuBackend()


def native_backend() -> Backend:
    kernels = library()
    assert kernels is not None
    return NativeBackend(kernels)


native = pytest.mark.skipif(library() is None, reason="the native kernels need AVX512-BF16 and no AMX")
"""Marks a test of the native kernels alone."""

both = pytest.mark.parametrize(
    "backend", [pytest.param(torch_backend, id="torch"), pytest.param(native_backend, id="native", marks=native)]
)
"""Gives a test `backend`, a function that makes one."""
