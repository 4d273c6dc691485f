"""The native CPU kernels: C, compiled for three instruction sets when the package is built (`hatch_build.py`).

`library()` is None if this CPU or build has none; the CPU backend then computes with torch alone.
"""

import ctypes
import re
from functools import cache
from pathlib import Path

import torch

TARGETS = ("amx", "avx512", "avx2")
"""Instruction sets with a library each, fastest first: AVX512 with AMX; AVX512 with BF16 and VNNI; AVX2 with FMA."""
_P, _L, _F = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_SIGNATURES = {
    "peregrine_threads": [_P, ctypes.c_int],
    "peregrine_linear": [_P, _L, _P, _P, _P, _L],
    "peregrine_argmax": [_P, _L, _L, _P],
    "peregrine_layer_norm": [_P, _P, _P, _P, _L, _L, _F],
    "peregrine_rotary_kv_write": [_P, _L, _P, _P, _P, _P, _L, _L, _L, _L, _L, _L],
    "peregrine_parallel_layer": [_P, _P, _P, _P, _P, _P, _P, _L, _L, _L],
    "peregrine_model": [_P, _P, _P, _P, _P, _L, _L, _P, _P, _L, _P],
    "peregrine_pack": [_P, _L, _L, _P, _P],
    "peregrine_pack_int4": [_P, _P, _P, _L, _L, _L, _P],
    "peregrine_round_int8": [_P, ctypes.c_int, _L, _L, _F, _P, _P],
    "peregrine_round_int4": [_P, ctypes.c_int, _L, _L, _P, _L, _P, _P],
    "peregrine_attention": [_P, _L, _P, _P, _L, _L, _L, _P, _P, _L, _L, _L, _L, _P, _P, _L],
}
"""Argument types of the exported functions that return nothing. `peregrine_max_weight`, `peregrine_columns_of_tile` and
`peregrine_units_of_block` take nothing and return an int."""


def library() -> ctypes.CDLL | None:
    """The fastest kernels that this CPU runs, on torch's current number of threads; None if there are none."""
    return next(filter(None, map(library_for, TARGETS)), None)


def rounding_library(device: torch.device) -> ctypes.CDLL | None:
    """The kernels that round weights on a device: the same integers, whatever the instruction set."""
    return library() if device.type == "cpu" else None


@cache
def library_for(target: str) -> ctypes.CDLL | None:
    """The kernels for one of TARGETS; None if they were not built or this CPU lacks an instruction set."""
    path = Path(__file__).parent / f"libperegrine_{target}.so"
    return load(path) if path.exists() and _runs_here(target) else None


def load(path: Path) -> ctypes.CDLL | None:
    """Loads a library that this CPU runs; None if torch has no OpenMP runtime, whose threads the kernels use."""
    parallel = _torch_parallel()
    if parallel is None:
        return None
    kernels = ctypes.CDLL(str(path))
    for name, arguments in _SIGNATURES.items():
        function = getattr(kernels, name)
        function.argtypes, function.restype = arguments, None
    kernels.peregrine_threads(parallel, torch.get_num_threads())
    return kernels


def _runs_here(target: str) -> bool:
    # No CPU has AVX512-BF16 without AVX512-VNNI, AVX2 without FMA and F16C, or tiles without AMX-BF16 and AMX-INT8.
    # Linux enables tiles per process, on request: `_init_amx` asks for them.
    has = {
        "amx": torch.cpu._init_amx,
        "avx512": torch.cpu._is_avx512_bf16_supported,
        "avx2": torch.cpu._is_avx2_supported,
    }
    return bool(has[target]())


def _torch_parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP runtime in this process: a second runtime's threads would compete for the same cores.

    GNU's, LLVM's and Intel's runtimes all export it.
    """
    loaded = re.findall(r"/\S*/lib(?:gomp|omp|iomp5)[^/\s]*\.so\S*", Path("/proc/self/maps").read_text())
    with_torch = sorted(set(loaded), key=lambda path: "/torch/" not in path)
    return ctypes.cast(ctypes.CDLL(with_torch[0]).GOMP_parallel, _P) if with_torch else None
