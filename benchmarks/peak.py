"""This machine's memory bandwidth and GEMM peak, measured beside the servers compared with them."""

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.hardware import Device
from peregrine_kernels import DenseWeight, backend_for
from peregrine_kernels.cpu.torch_linear import PackedLinear, is_packable
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows

MEMORY_BYTES = 2**30
READ_WIDTH = 8192
"""Columns of the matrix that is read."""
ROWS, OUT_FEATURES, IN_FEATURES = 512, 8192, 2048
"""Shape of the largest product of a prefill in the benchmark's model."""


class Memory:
    """Reads a gigabyte, more than any cache holds, in the faster of two ways."""

    def __init__(self) -> None:
        # torch's sum alone understates slow memory: 24 GB/s where one row of our product read 30 (2 cores of Zen 4).
        one_row = torch.ones(1, READ_WIDTH).bfloat16()
        matrix = torch.ones(MEMORY_BYTES // 2 // READ_WIDTH, READ_WIDTH).bfloat16()
        product = backend_for(torch.device("cpu")).linear(DenseWeight(matrix))
        self._readers: list[Callable[[], object]] = [torch.ones(MEMORY_BYTES // 4).sum, partial(product, one_row)]

    def seconds(self) -> float:
        """Seconds of the best of three reads in each way."""
        return min(map(best, self._readers))


class Peak:
    """Measures memory, and a large product in the faster of our packing and oneDNN's."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        weight = torch.randn(OUT_FEATURES, IN_FEATURES).bfloat16()
        backend = backend_for(torch.device("cpu"))
        largest, group = backend.largest_int8, backend.int4_group
        self._memory = Memory()
        x, theirs = torch.randn(ROWS, IN_FEATURES).bfloat16(), peer_dtype()
        self._products: dict[str, list[Callable[[], object]]] = {
            "bf16": [
                partial(backend.linear(DenseWeight(weight)), x),
                partial(PackedLinear.pack(weight.to(theirs), None, None), x.to(theirs)),
            ]
        }
        if largest:
            self._products["int8"] = [partial(backend.linear(quantize_rows(weight, largest)), x)]
        if group:
            self._products["int4"] = [partial(backend.linear(quantize_int4(weight, group)), x)]

    def measure(self, weights: str) -> Device | None:
        """Limits for `bf16`, `int8` or `int4` weights; None where the kernels have no such product."""
        products = self._products.get(weights)
        if not products:
            return None
        bandwidth = MEMORY_BYTES / self._memory.seconds()
        flops = 2 * ROWS * OUT_FEATURES * IN_FEATURES / min(map(best, products))
        return Device("this machine", bandwidth, flops, 0.0)


def peer_dtype() -> torch.dtype:
    """dtype of the other servers: bfloat16, or float32 on a CPU where torch only emulates bfloat16."""
    return torch.bfloat16 if is_packable(torch.bfloat16) else torch.float32


@torch.inference_mode()
def best(call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of several calls: other work on the machine only adds time."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
