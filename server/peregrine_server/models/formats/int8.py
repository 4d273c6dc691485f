"""8-bit integers with a scale for each row, rounded from the checkpoint's floating-point weights as they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from peregrine_server.models.formats.dense import DenseFormat, read_dense

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import Backend, Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource

ROW_BYTES = 8
"""Bytes beside the integers of a row: its scale, and its offset for unsigned inputs."""
ALIGNMENT = 4
"""Linears whose number of inputs is no multiple of it stay dense: the kernels multiply four integers at once."""


class Int8Format:
    """W8A8: weights are rounded here, inputs in the kernels."""

    name = "int8"
    compute_dtype: str | None = "bfloat16"

    def __init__(self, backend: Backend | None = None) -> None:
        self._dense = DenseFormat()
        self._largest = 127 if backend is None else backend.largest_int8
        if not self._largest:
            from peregrine_kernels import UnsupportedWeight

            raise UnsupportedWeight("--quantize int8 needs a CPU with AVX2 and the native kernels: leave it out")

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, tuple[int, ...]]:
        return self._dense.expected(name, out_features, in_features)

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        return self.from_dense(read_dense(weights, parts, axis))

    def from_dense(self, table: Tensor) -> Weight:
        if table.shape[1] % ALIGNMENT:
            return self._dense.from_dense(table)
        from peregrine_kernels.int8 import quantize_rows

        return quantize_rows(table, self._largest)

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        if in_features % ALIGNMENT:
            return self._dense.num_bytes(out_features, in_features, dtype)
        return out_features * (in_features + ROW_BYTES)
