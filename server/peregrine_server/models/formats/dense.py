"""Weights as the checkpoint has them, cast to the model's dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from peregrine_server.models.formats.interface import DENSE, DTYPE_BYTES
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import DenseWeight
    from peregrine_server.models.formats.interface import WeightKernels
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource


class DenseFormat:
    """No quantization."""

    name = DENSE
    compute_dtype: str | None = None

    def __init__(self, kernels: WeightKernels | None = None) -> None:
        """Every backend has these."""

    def linear(self, name: str) -> DenseFormat:
        return self

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        return {f"{name}.weight": TensorSpec((out_features, in_features))}

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> DenseWeight:
        return self.from_dense(read_dense(weights, parts, axis))

    def from_dense(self, table: Tensor) -> DenseWeight:
        from peregrine_kernels import DenseWeight  # Formats are sized without torch.

        return DenseWeight(table)

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return out_features * in_features * DTYPE_BYTES[dtype]

    def head_num_bytes(self, out_features: int, in_features: int, dtype: str) -> int | None:
        return None

    def refuses(self, leftover: str) -> bool:
        return False

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return self.num_bytes(out_features, in_features, dtype)


def read_dense(weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Tensor:
    """[out, in]: the slices of the linears' floating-point weights, as `WeightFormat.load` takes them."""
    tensors = [(f"{name}.weight", part) for name, part in parts]
    return weights.rows(*tensors) if axis == 0 else weights.columns(*tensors)
