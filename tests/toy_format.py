"""A weight format in one file: the checkpoint holds half of every linear's weight, under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import DenseWeight
    from peregrine_server.models.formats.interface import WeightKernels
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource


class HalvesFormat:
    name = "halves"
    compute_dtype: str | None = None

    def __init__(self, kernels: WeightKernels) -> None:
        self._dense = DenseFormat()

    def linear(self, name: str) -> HalvesFormat:
        return self

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        return {f"{name}.halves": TensorSpec((out_features, in_features))}

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> DenseWeight:
        tensors = [(f"{name}.halves", part) for name, part in parts]
        halves = weights.rows(*tensors) if axis == 0 else weights.columns(*tensors)
        return self._dense.from_dense(2 * halves)

    def from_dense(self, table: Tensor) -> DenseWeight:
        return self._dense.from_dense(table)

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return self._dense.num_bytes(out_features, in_features, dtype)

    def head_num_bytes(self, out_features: int, in_features: int, dtype: str) -> int | None:
        return self._dense.head_num_bytes(out_features, in_features, dtype)

    def refuses(self, leftover: str) -> bool:
        return False

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return self._dense.checkpoint_bytes(out_features, in_features, dtype)
