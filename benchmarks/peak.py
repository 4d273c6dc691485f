"""What this machine's memory and cores can do, measured beside what is held against it."""

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.hardware import Device
from peregrine_kernels import DenseWeight, backend_for
from peregrine_kernels.cpu.torch_linear import PackedLinear, is_packable
from peregrine_kernels.int8 import quantize_rows

MEMORY_BYTES = 2**30
READ_WIDTH = 8192
"""Columns of the matrix that is read."""
ROWS, OUT_FEATURES, IN_FEATURES = 512, 8192, 2048
"""A prefill's largest product in the benchmark's model."""


class Memory:
    """Reads a gigabyte that no cache holds, in the faster of two ways."""

    def __init__(self) -> None:
        # torch's sum alone understates slow memory: 24 GB/s where one row of our product read 30 (2 cores of Zen 4).
        one_row = torch.ones(1, READ_WIDTH).bfloat16()
        matrix = torch.ones(MEMORY_BYTES // 2 // READ_WIDTH, READ_WIDTH).bfloat16()
        product = backend_for(torch.device("cpu")).linear(DenseWeight(matrix))
        self._readers = [torch.ones(MEMORY_BYTES // 4).sum, partial(product, one_row)]

    def seconds(self) -> float:
        """Of the best of three reads in each way."""
        return min(map(best, self._readers))


class Peak:
    """The memory, and a large product in the faster of our packing and oneDNN's."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        weight = torch.randn(OUT_FEATURES, IN_FEATURES).bfloat16()
        backend = backend_for(torch.device("cpu"))
        largest = backend.largest_int8
        self._memory = Memory()
        x, theirs = torch.randn(ROWS, IN_FEATURES).bfloat16(), peer_dtype()
        self._products = [
            partial(backend.linear(DenseWeight(weight)), x),
            partial(PackedLinear.pack(weight.to(theirs), None, None), x.to(theirs)),
        ]
        self._int8 = [partial(backend.linear(quantize_rows(weight, largest)), x)] if largest else []

    def measure(self, weights: str) -> Device | None:
        """For `bf16` or `int8` weights; None where the kernels have no such product."""
        products = self._products if weights == "bf16" else self._int8
        if not products:
            return None
        bandwidth = MEMORY_BYTES / self._memory.seconds()
        flops = 2 * ROWS * OUT_FEATURES * IN_FEATURES / min(map(best, products))
        return Device("this machine", bandwidth, flops, 0.0)


def peer_dtype() -> torch.dtype:
    """What others compute in here: bfloat16, or float32 on a CPU for which torch would only emulate it."""
    return torch.bfloat16 if is_packable(torch.bfloat16) else torch.float32


@torch.inference_mode()
def best(call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of some calls: what else runs on the machine only ever adds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
