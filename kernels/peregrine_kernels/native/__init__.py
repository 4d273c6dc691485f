"""The native CPU kernels: C for AVX512-BF16, compiled when the package is built (`hatch_build.py`), called by address.

`library()` is None where they cannot run; the CPU backend then computes with torch alone.
"""

import ctypes
import re
from functools import cache
from pathlib import Path

import torch

PATH = Path(__file__).parent / "libperegrine.so"
_P, _L, _F = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_SIGNATURES = {
    "peregrine_threads": [_P, ctypes.c_int],
    "peregrine_linear": [_P, _L, _P, _P, _P, _L],
    "peregrine_layer_norm": [_P, _P, _P, _P, _L, _L, _F],
    "peregrine_rotary_kv_write": [_P, _L, _P, _P, _P, _P, _L, _L, _L, _L],
    "peregrine_parallel_layer": [_P, _P, _P, _P, _P, _P, _P, _L, _L],
    "peregrine_attention": [_P, _L, _P, _P, _L, _L, _P, _P, _L, _L, _L, _L, _P, _P, _L],
}
"""As the C files declare them; nothing returns a value."""


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, on as many threads as torch has now; None if this CPU or this build has none."""
    if not PATH.exists() or not _runs_here() or (parallel := _torch_parallel()) is None:
        return None
    kernels = ctypes.CDLL(str(PATH))
    for name, arguments in _SIGNATURES.items():
        function = getattr(kernels, name)
        function.argtypes, function.restype = arguments, None
    kernels.peregrine_threads(parallel, torch.get_num_threads())
    return kernels


def _runs_here() -> bool:
    # Where there is AMX, oneDNN multiplies many rows several times faster than AVX512-BF16 can.
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def _torch_parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP runtime in this process: a second runtime's threads would fight for the same cores.

    GNU's, LLVM's and Intel's runtimes all have it.
    """
    loaded = re.findall(r"/\S*/lib(?:gomp|omp|iomp5)[^/\s]*\.so\S*", Path("/proc/self/maps").read_text())
    with_torch = sorted(set(loaded), key=lambda path: "/torch/" not in path)
    return ctypes.cast(ctypes.CDLL(with_torch[0]).GOMP_parallel, _P) if with_torch else None
