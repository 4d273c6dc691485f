"""What this machine's memory and cores can do, measured beside what is held against it."""

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.hardware import Device
from peregrine_kernels import backend_for
from peregrine_kernels.cpu_linear import PackedLinear
from peregrine_kernels.cpu_native import NativeBackend
from peregrine_kernels.native import library

MEMORY_BYTES = 2**30
ROWS, OUT_FEATURES, IN_FEATURES = 512, 8192, 2048
"""A prefill's largest product in the benchmark's model."""


class Peak:
    """A gigabyte that no cache holds, and a large product in the faster of our packing and oneDNN's."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        weight = torch.randn(OUT_FEATURES, IN_FEATURES).bfloat16()
        backend, kernels = backend_for(torch.device("cpu")), library()
        self._buffer = torch.ones(MEMORY_BYTES // 4)
        self._x = torch.randn(ROWS, IN_FEATURES).bfloat16()
        self._linears = [backend.linear(weight), PackedLinear.pack(weight, None, None)]
        self._int8 = [] if kernels is None else [NativeBackend(kernels, quantizes=True).linear(weight)]

    def measure(self, weights: str) -> Device | None:
        """For `bf16` or `int8` weights; None where the kernels have no such product."""
        linears = self._linears if weights == "bf16" else self._int8
        if not linears:
            return None
        bandwidth = MEMORY_BYTES / best(self._buffer.sum)
        flops = 2 * ROWS * OUT_FEATURES * IN_FEATURES / min(best(partial(linear, self._x)) for linear in linears)
        return Device("this machine", bandwidth, flops, 0.0)


@torch.inference_mode()
def best(call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of some calls: what else runs on the machine only ever adds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
