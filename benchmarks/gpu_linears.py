"""Linears of packed weights beside bfloat16's on the GPU at hand, for every number of rows that decodes have."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_model import CUDA, DTYPE
from benchmarks.hardware import Device
from benchmarks.kernel_costs import linear_costs
from peregrine_kernels import DenseWeight, Linear, Weight
from peregrine_kernels.aot.shapes import Shape
from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 2048)
KINDS: dict[str, Callable[[Tensor], Weight]] = {
    "bf16": DenseWeight,
    "int8": lambda weight: quantize_rows(weight, 127),
    "fp8": quantize_fp8,
    "fp8-w8a8": lambda weight: replace(quantize_fp8(weight), rounds_inputs=True),
    "int4": lambda weight: quantize_int4(weight, 64),
}
"""Kind -> a weight of it from a bfloat16 one."""


class LinearCase(NamedTuple):
    """One product, and the least time of it in seconds."""

    what: str
    rows: int
    run: Callable[[], Tensor]
    roof: float


def linear_cases(shape: Shape, device: Device) -> Iterator[LinearCase]:
    """The linears of a layer that most of its weights are in: up, and the one of the sum."""
    hidden, attended = shape.hidden_size, shape.num_heads * shape.head_dim
    sizes = {"up": (shape.ffn_size, hidden), "down": (hidden, shape.ffn_size + attended * shape.is_parallel)}
    for name, (out_features, in_features) in sizes.items():
        table = torch.empty(out_features, in_features, device=CUDA, dtype=DTYPE).normal_(std=0.02)
        for kind, packed in KINDS.items():
            linear = TritonBackend().linear(packed(table))
            for rows in ROWS:
                has_fp8 = device.fp8_flops_per_second > 0
                costs = linear_costs(name, rows, out_features, in_features, "" if kind == "bf16" else kind, has_fp8)
                roof = sum(cost.seconds(device) for cost in costs)
                yield LinearCase(f"{name}, {kind}", rows, product(linear, rows), roof)


def product(linear: Linear, rows: int) -> Callable[[], Tensor]:
    x = torch.randn(rows, linear.in_features, device=CUDA, dtype=DTYPE)
    return lambda: linear(x)
