"""Bytes and operations of kernels, from the arguments of their own launches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from benchmarks.hardware import Device
from peregrine_kernels.aot.weights import meta_weights
from peregrine_kernels.gpu.dequantize import dequantize_launch
from peregrine_kernels.gpu.float8_linear import FP8_PANEL_ROWS, Float8Linear
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.linear import QuantizedLinear, panels
from peregrine_kernels.gpu.quantized_gemm import MAX_ROWS
from peregrine_kernels.gpu.round_inputs import round_inputs_launch
from peregrine_kernels.gpu.row_major import row_major_launch
from peregrine_kernels.weights import Float8Weight

META = torch.device("meta")
DTYPE = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes and operations of one launch of a kernel, or of several."""

    kernel: str
    num_bytes: float
    """Bytes to and from memory, each tensor once."""
    flops: float
    """Operations on tensor cores, padding included."""
    is_fp8: bool = False
    """Whether those are of 8-bit floating-point numbers."""

    def seconds(self, device: Device) -> float:
        peak = device.fp8_flops_per_second if self.is_fp8 else device.flops_per_second
        return max(self.num_bytes / device.bytes_per_second, self.flops / peak if self.flops else 0.0)

    def times(self, count: int) -> "Cost":
        return replace(self, num_bytes=self.num_bytes * count, flops=self.flops * count)


@dataclass(frozen=True, slots=True)
class Work:
    """One step: `num_sequences` decodes at a context, or one chunk of `num_tokens` that ends there."""

    num_sequences: int
    num_tokens: int
    """Tokens that the step computes of each sequence."""
    context: int

    @property
    def num_rows(self) -> int:
        return self.num_sequences * self.num_tokens

    @property
    def is_decode(self) -> bool:
        return self.num_tokens == 1


W8A8 = "fp8-w8a8"
"""The kind of a linear that rounds its inputs to its weight's type."""


def linear_costs(
    name: str, rows: int, out_features: int, in_features: int, kind: str, has_fp8: bool = False
) -> Iterator[Cost]:
    """Costs of x [rows, in] @ weight [out, in]^T, of a packed weight by its own launches, on a device that multiplies
    fp8, or not."""
    if not kind:
        yield gemm(name, rows, out_features, in_features)
        return
    linear, work = _packed(kind, out_features, in_features), Work(rows, 1, 0)
    if rows <= MAX_ROWS:
        for launch in linear.launches(empty(rows, in_features), empty(rows, out_features)):
            yield cost_of(launch, work)
        return
    x, codes = empty(rows, in_features), empty(rows, in_features, dtype=torch.float8_e4m3fn)
    if kind == W8A8 and has_fp8:
        yield cost_of(round_inputs_launch(x, codes, empty(rows, 1, dtype=torch.float32)), work)
        for part in panels(out_features, FP8_PANEL_ROWS):
            size = part.stop - part.start
            yield cost_of(row_major_launch(linear.weight.rows(part), codes.new_empty(size, in_features)), work)
            yield gemm(name, rows, size, in_features, is_fp8=True)
        return
    if kind == W8A8:
        yield cost_of(round_inputs_launch(x, x), work)
    for part in panels(out_features):
        size = part.stop - part.start
        yield cost_of(dequantize_launch(linear.weight.rows(part), empty(size, in_features)), work)
        yield gemm(name, rows, size, in_features)


@cache
def _packed(kind: str, out_features: int, in_features: int) -> QuantizedLinear:
    if kind == W8A8:
        weight = meta_weights(out_features, in_features)["fp8"]
        assert isinstance(weight, Float8Weight)
        return Float8Linear(weight, None, None)
    return QuantizedLinear(meta_weights(out_features, in_features)[kind], None, None)


def gemm(name: str, rows: int, out_features: int, in_features: int, is_fp8: bool = False) -> Cost:
    """Cost of x [rows, in] @ weight [out, in]^T, both in fp8 or in the model's type, which the result is of."""
    num_bytes = (out_features + rows) * in_features * (1 if is_fp8 else DTYPE.itemsize)
    num_bytes += rows * out_features * DTYPE.itemsize
    return Cost(name, num_bytes, 2 * rows * out_features * in_features, is_fp8)


def cost_of(launch: Launch, work: Work) -> Cost:
    """Cost of a launch, from its own arguments."""
    name = launch.kernel.__name__.removesuffix("_kernel")
    num_bytes, flops = COSTS[name](launch, work)
    return Cost(name, num_bytes, flops)


def decode_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of decode attention: K and V once; q, out and the splits' results; rows padded to tiles."""
    c, q = launch.constants, _tensor(launch, "q")
    rows = int(c["HEADS"]) + int(c["MORE_HEADS"])
    flops = 4 * rows * int(c["BLOCK_D"]) * int(c["NUM_KV_HEADS"]) * work.context * work.num_sequences
    partial = _size(launch, "partials") + _size(launch, "lses") if launch.grid[2] > 1 else 0
    return kv_bytes(launch, work) + 2 * q.numel() * q.itemsize + partial, flops


def prefill_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of prefill attention: K and V once (later tiles find them in L2); each program multiplies the tiles that its
    last row sees."""
    c, q, tiles = launch.constants, _tensor(launch, "q"), _tensor(launch, "tiles")
    prefix = work.context - work.num_tokens
    rows, keys, group = int(c["BLOCK_M"]), int(c["BLOCK_N"]), int(c["GROUP"])
    seen = 0
    for first in range(0, work.num_tokens * group, rows):
        last = prefix + min((first + rows - 1) // group, work.num_tokens - 1)
        seen += (last // keys + 1) * keys
    flops = 4 * rows * int(c["BLOCK_D"]) * int(c["NUM_KV_HEADS"]) * seen * work.num_sequences
    return kv_bytes(launch, work) + 2 * q.numel() * q.itemsize + tiles.numel() * tiles.itemsize, flops


def kv_bytes(launch: Launch, work: Work) -> float:
    """Bytes of the pages read: a token's K and V are one stride."""
    pages, stride = _tensor(launch, "pages"), launch.arguments["stride_slot"]
    assert isinstance(stride, int)
    return stride * pages.itemsize * work.context * work.num_sequences


def merge_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "partials") + _size(launch, "lses") + _size(launch, "out"), 0


def rotary_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of rotary and KV write: the row is read; q is written back, k and v to pages of the same type."""
    qkv = _tensor(launch, "qkv")
    tables = 0 if launch.arguments["cos"] is None else _size(launch, "cos") + _size(launch, "sin")
    return 2 * qkv.numel() * qkv.itemsize + tables, 0


def norm_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of residual and norms: x, delta, their sum, and each result."""
    tensors = ("x", "delta", "delta", "y_1", "y_2", "weight_1", "bias_1", "weight_2", "bias_2")
    return sum(_size(launch, name) for name in tensors if launch.arguments[name] is not None), 0


def activation_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "x") + _size(launch, "out"), 0


def quantized_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of a product with a packed weight: the weight once, x, and the sums of each split; rows padded to tiles."""
    names = ("words", "scales", "zeros", "table", "x")
    num_bytes = sum(_size(launch, name) for name in names if launch.arguments[name] is not None)
    words, rows = _tensor(launch, "words"), launch.constants.get("BLOCK_M", 0)
    num_weights = words.numel() // 128 * 16 * int(launch.constants["COLUMNS"])
    return num_bytes + _size(launch, "out"), 2 * launch.grid[0] * int(rows) * num_weights if rows else 0


def sums_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "partials") + _size(launch, "out"), 0


def dequantize_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "words") + _size(launch, "scales") + _size(launch, "out"), 0


def row_major_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "words") + _size(launch, "out"), 0


def rounding_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of rounding inputs, which are in the first-level cache when they are read again."""
    scales = 0 if launch.arguments["scales"] is None else _size(launch, "scales")
    return _size(launch, "x") + _size(launch, "out") + scales, 0


COSTS: dict[str, Callable[[Launch, Work], tuple[float, float]]] = {
    "decode_attention": decode_cost,
    "prefill_attention": prefill_cost,
    "merge_splits": merge_cost,
    "rotary_kv": rotary_cost,
    "layer_norm": norm_cost,
    "activation": activation_cost,
    "quantized_gemv": quantized_cost,
    "quantized_gemm": quantized_cost,
    "sum_splits": sums_cost,
    "dequantize": dequantize_cost,
    "row_major": row_major_cost,
    "round_inputs": rounding_cost,
}
"""Kernel name -> function that gives (bytes, operations)."""


def _tensor(launch: Launch, name: str) -> Tensor:
    value = launch.arguments[name]
    assert isinstance(value, Tensor)
    return value


def _size(launch: Launch, name: str) -> int:
    tensor = _tensor(launch, name)
    return tensor.numel() * tensor.itemsize


def empty(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)
