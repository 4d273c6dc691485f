"""The linears of the GPU backend: kernels of a row alone, cuBLAS for more, and one kernel for what follows it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from peregrine_kernels.dense_linear import DenseLinear
from peregrine_kernels.gpu.activation import activation_launch
from peregrine_kernels.gpu.dequantize import dequantize_launch
from peregrine_kernels.gpu.fragment_order import fragment_order
from peregrine_kernels.gpu.gemv import gemv_launch
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.quantized_gemm import MAX_ROWS, GemmPlan, quantized_gemm_launches
from peregrine_kernels.gpu.quantized_gemv import quantized_gemv_launch
from peregrine_kernels.interface import LinearInto
from peregrine_kernels.weights import QuantizedWeight

PANEL_ROWS = 4096
"""Most rows of a weight that are dequantized at a time: with 2,048 rows of inputs, 512 tiles of a GEMM, several for
each of a device's 72 to 132 processors."""
PANEL_ALIGNMENT = 128
"""Rows of a panel are a multiple of a GEMM's tile."""


class TritonLinear(DenseLinear):
    """A row alone takes one kernel, more take a GEMM and one for what follows it."""

    __slots__ = ()

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return product(self, x, residual)

    def into(self, x: Tensor, out: Tensor) -> None:
        if len(x) == 1:
            gemv_launch(x, self.weight, self.bias, self.activation, out)()
            return
        torch.mm(x, self.weight.T, out=out)
        finish(out, self.bias, self.activation)


class QuantizedLinear:
    """A weight that stays packed: of few rows its codes are decoded within the product, for more some rows of it at a
    time are dequantized for a GEMM.

    Those, and sums of parts of the inputs, are temporary tensors, not ones that linears share: branches of a graph run
    at once, and the allocator keeps apart what their streams use.
    """

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None, activation: str | None) -> None:
        """See `Backend.linear`."""
        self.weight, self.bias, self.activation = fragment_order(weight), bias, activation
        self._panels = [(rows, self.weight.rows(rows)) for rows in panels(self.out_features)]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return product(self, x, residual)

    def into(self, x: Tensor, out: Tensor) -> None:
        """The same to out [T, out], whose rows may be strided."""
        if len(x) > MAX_ROWS:
            self.multiply_many(x, out)
            return
        for launch in self.launches(x, out):
            launch()

    def launches(self, x: Tensor, out: Tensor, capability: int | None = None) -> list[Launch]:
        """The launches of a product of at most MAX_ROWS rows, on a device of that capability, by default x's."""
        weight, bias, activation = self.weight, self.bias, self.activation
        if len(x) == 1:
            return [quantized_gemv_launch(x, weight, bias, activation, out)]
        plan = GemmPlan.of(weight, len(x))
        return quantized_gemm_launches(x, weight, bias, activation, out, plan, capability)

    def multiply_many(self, x: Tensor, out: Tensor) -> None:
        """`into` of more than MAX_ROWS rows."""
        scratch = x.new_empty(panel_rows(self.out_features), self.in_features)
        for rows, panel in self._panels:
            values = scratch[: panel.shape[0]]
            dequantize_launch(panel, values)()
            torch.mm(x, values.T, out=out[:, rows])
        finish(out, self.bias, self.activation)


def product(linear: LinearInto, x: Tensor, residual: Tensor | None) -> Tensor:
    """The call of a linear by its `into`."""
    y = x.new_empty(len(x), linear.out_features)
    linear.into(x, y)
    return y if residual is None else y.add_(residual)


def panels(out_features: int, most: int | None = None) -> Iterator[slice]:
    """The rows of a weight, in parts of `panel_rows`."""
    step = panel_rows(out_features, most)
    return (slice(start, min(start + step, out_features)) for start in range(0, out_features, step))


def panel_rows(out_features: int, most: int | None = None) -> int:
    """Rows of each part but the last, which has about as many: at most `most`, by default PANEL_ROWS."""
    count = -(-out_features // (most or PANEL_ROWS))
    tiles = -(-out_features // (count * PANEL_ALIGNMENT))
    return min(tiles * PANEL_ALIGNMENT, out_features)


def finish(out: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Bias and activation on a product [T, out], in place."""
    if activation is not None:
        activation_launch(activation, out, bias, out)()
    elif bias is not None:
        out += bias
