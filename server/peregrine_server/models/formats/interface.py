"""The door between a weight format and the model families. Imports no torch: formats are also sized without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import Backend, Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by the name of its type."""


class WeightFormat(Protocol):
    """How the linears of a model are stored. Embeddings, norms and biases are always dense."""

    name: str
    """As --quantize names it."""
    compute_dtype: str | None
    """The dtype that a model with such weights computes in ("bfloat16", ...); None: any."""

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every tensor that a checkpoint holds of the linear `name`, its bias aside."""

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        """Reads a rank's slices of linears `(name, slice)`: of their rows (axis 0), one below the other, or of their
        columns (axis 1), side by side."""

    def from_dense(self, table: Tensor) -> Weight:
        """The weight of an output head whose values [out, in] are at hand."""

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        """Bytes of a linear on its device, in a model of `dtype`, its bias aside."""


class WeightFormatFactory(Protocol):
    """Makes a format for the backend that will multiply it."""

    def __call__(self, backend: Backend | None) -> WeightFormat:
        """`backend` None: to size weights, not to load them. Raises UnsupportedWeight if it has no such kernels."""
