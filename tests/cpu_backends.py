"""The CPU backends to be tested: torch's ops everywhere, the native kernels where this machine runs them."""

from functools import partial

import pytest

from peregrine_kernels import Backend
from peregrine_kernels.cpu import CpuBackend
from peregrine_kernels.cpu_native import NativeBackend
from peregrine_kernels.native import TARGETS, library, library_for


def torch_backend() -> Backend:
    return CpuBackend()


def native_backend(target: str, quantizes: bool = False) -> NativeBackend:
    kernels = library_for(target)
    assert kernels is not None
    return NativeBackend(kernels, quantizes)


def _runs(target: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(library_for(target) is None, reason=f"this CPU has no {target}")


native = pytest.mark.skipif(library() is None, reason="this CPU has no AVX2")
"""Marks a test of the native kernels that the server would take here."""

targets = pytest.mark.parametrize("target", [pytest.param(each, marks=_runs(each)) for each in TARGETS])
"""Gives a test `target`, each that this CPU runs."""

both = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(torch_backend, id="torch"),
        *(pytest.param(partial(native_backend, each), id=each, marks=_runs(each)) for each in TARGETS),
    ],
)
"""Gives a test `backend`, a function that makes one."""
