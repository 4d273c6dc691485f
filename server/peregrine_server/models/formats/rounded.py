"""Formats that are rounded from the checkpoint's floating-point weights as they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from peregrine_server.models.formats.dense import read_dense
from peregrine_server.models.formats.quantized import QuantizedFormat
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from peregrine_kernels import Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource


class RoundedFormat(QuantizedFormat):
    """A format that any checkpoint of floating-point weights can be loaded in."""

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        return self.dense.expected(name, out_features, in_features)

    def refuses(self, leftover: str) -> bool:
        return self.dense.refuses(leftover)

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        table = read_dense(weights, parts, axis)
        return self.rounded(table, self.stored(table.shape[1]))

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return self.dense.checkpoint_bytes(out_features, in_features, dtype)
