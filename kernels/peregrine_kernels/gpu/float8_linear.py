"""Linears of fp8 weights whose inputs are rounded to fp8 as well (W8A8).

Inputs are rounded whatever the number of rows, so that a row's result does not depend on how many there are; of more
than `MAX_ROWS` tensor cores multiply the codes themselves, where they can.
"""

import torch
from torch import Tensor

from peregrine_kernels.gpu.launch import Launch, capability_of
from peregrine_kernels.gpu.linear import PANEL_ROWS, QuantizedLinear, finish, panel_rows, panels
from peregrine_kernels.gpu.round_inputs import round_inputs_launch, rounded
from peregrine_kernels.gpu.row_major import row_major_launch
from peregrine_kernels.weights import Float8Weight

FP8_CAPABILITY = 89
"""The least capability whose tensor cores multiply fp8. torch multiplies it with a scale a row on 8.9 and all later
ones: by CUTLASS, and on 9.0 by cuBLAS, if it is of CUDA 12.9 or later."""
FP8_ALIGNMENT = 16
"""Inputs and outputs that `torch._scaled_mm` takes are a multiple of it."""
FP8_PANEL_ROWS = 2 * PANEL_ROWS
"""Most rows of a weight that are brought back at a time: as many bytes as of those that are dequantized."""
FAST_ACCUMULATION = False
"""Whether 14 bits are kept of a sum: of 22,720 products that errs by 1.8 % (emulated; rounding inputs, by 2.7 %), for a
GEMM that is 1.1 to 1.2 times as fast (torchao, issue 2377)."""


class Float8Linear(QuantizedLinear):
    """A weight that stays packed, and inputs that are rounded by their own scales."""

    def __init__(self, weight: Float8Weight, bias: Tensor | None, activation: str | None) -> None:
        """See `Backend.linear`."""
        super().__init__(weight, bias, activation)
        is_aligned = not (self.in_features % FP8_ALIGNMENT or self.out_features % FP8_ALIGNMENT)
        self._has_gemm = is_aligned and capability_of(self.weight.words.device) >= FP8_CAPABILITY
        if self._has_gemm:
            self._panels = [(rows, self.weight.rows(rows)) for rows in panels(self.out_features, FP8_PANEL_ROWS)]

    def launches(self, x: Tensor, out: Tensor, capability: int | None = None) -> list[Launch]:
        values = torch.empty_like(x)
        return [round_inputs_launch(x, values), *super().launches(values, out, capability)]

    def multiply_many(self, x: Tensor, out: Tensor) -> None:
        if not self._has_gemm:
            super().multiply_many(rounded(x), out)
            return
        codes = torch.empty_like(x, dtype=torch.float8_e4m3fn)
        scales = x.new_empty(len(x), 1, dtype=torch.float32)
        round_inputs_launch(x, codes, scales)()
        scratch = codes.new_empty(panel_rows(self.out_features, FP8_PANEL_ROWS), self.in_features)
        for rows, panel in self._panels:
            values, row_scales = scratch[: panel.shape[0]], panel.scales.view(1, -1)[:, : panel.shape[0]]
            row_major_launch(panel, values)()
            torch._scaled_mm(
                codes,
                values.T,
                scales,
                row_scales,
                out_dtype=out.dtype,
                use_fast_accum=FAST_ACCUMULATION,
                out=out[:, rows],
            )
        finish(out, self.bias, self.activation)
