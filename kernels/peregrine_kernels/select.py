"""The choice of a backend: the only place that knows them all. Each is imported when it is chosen."""

import os
from importlib.util import find_spec

import torch

from peregrine_kernels.interface import Backend
from peregrine_kernels.kv_cache import KV_DTYPES


def backend_for(device: torch.device, kv_dtype: str | None = None) -> Backend:
    """The fastest backend for `device`, its pages in `kv_dtype` (of KV_DTYPES, or None for the model's own dtype).

    PEREGRINE_BACKEND names another one, for tests: triton with TRITON_INTERPRET=1 runs the GPU's kernels on a CPU,
    reference runs none. Raises ValueError if there is no such backend, or there are no such pages.
    """
    fastest = {"cpu": "cpu", "cuda": "triton" if find_spec("triton") else "reference"}
    name = os.environ.get("PEREGRINE_BACKEND") or fastest.get(device.type, "reference")
    if kv_dtype is not None and kv_dtype not in KV_DTYPES:
        raise ValueError(f"--kv-cache-dtype {kv_dtype} has no kernels: choose one of {', '.join(KV_DTYPES)}")
    if name == "cpu":
        return _cpu_backend()
    if name == "triton":
        from peregrine_kernels.gpu.backend import TritonBackend

        return TritonBackend()
    if name == "reference":
        from peregrine_kernels.reference.backend import ReferenceBackend

        return ReferenceBackend()
    raise ValueError(f"PEREGRINE_BACKEND is {name!r}: unset it, or name one of cpu, triton, reference")


def _cpu_backend() -> Backend:
    from peregrine_kernels.native import TARGETS, library_for

    for target in TARGETS:
        if (kernels := library_for(target)) is not None:
            from peregrine_kernels.cpu.native_backend import NativeBackend

            return NativeBackend(kernels, target)
    from peregrine_kernels.cpu.torch_backend import TorchBackend

    return TorchBackend()
