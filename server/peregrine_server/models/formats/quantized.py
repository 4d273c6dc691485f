"""Formats of linears that are packed where the backend has kernels for them: the common part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels
from peregrine_server.models.formats.packing import (
    DENSE,
    FP8,
    INT8,
    INT8_ALIGNMENT,
    Kind,
    Packing,
    pack,
    packing_for,
    round_to,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from peregrine_kernels import DenseWeight, Weight
    from peregrine_kernels.weights import QuantizedWeight

GROUP_SIZES = 64, 32, 16, 8
"""Sizes of a group of inputs, by preference. 64 is a common head dimension, and divides the slices of a tensor parallel
group (`loading/slices.py`); widths that it does not divide have smaller groups."""

KEPT_GROUP, MIN_GROUP = GROUP_SIZES[0], GROUP_SIZES[-1]
"""Sizes of groups on a device. Of a checkpoint's larger groups several are made, so that kernels see one size and a
rank's slices cut none; no kernels take smaller ones."""


class QuantizedFormat(ABC):
    """A `WeightFormat` but for `expected`, `load`, `refuses` and `checkpoint_bytes`."""

    name: str

    def __init__(self, kernels: WeightKernels = ALL_KERNELS) -> None:
        """Raises UnsupportedWeight."""
        self.kernels = kernels
        self.dense = DenseFormat()
        if packing_for(kernels, self.stored(GROUP_SIZES[0]), GROUP_SIZES[0]) is None:
            from peregrine_kernels import UnsupportedWeight

            raise UnsupportedWeight(f"{self.name} weights have no kernels for this device: choose another --quantize")

    @abstractmethod
    def stored(self, in_features: int) -> Packing:
        """The kind of a linear's values; DENSE where it is not quantized."""

    def linear(self, name: str) -> Self:
        return self

    @property
    def compute_dtype(self) -> str | None:
        return None if self._usual == DENSE else "bfloat16"

    @property
    def rounds_inputs(self) -> bool:
        """Whether linears round their inputs, which takes memory for them."""
        return self._usual.rounds_inputs

    @property
    def _usual(self) -> Packing:
        """The kind that a linear of the usual width is kept as."""
        return self.kept(self.stored(GROUP_SIZES[0]), GROUP_SIZES[0])

    def head(self, in_features: int) -> Packing:
        """The kind that an output head is rounded to. Never 4 bits: with those the perplexity of a model of 7 B weights
        rises from 7.12 to 8.39, with 8 to 7.25 (llama.cpp, pull request 2816)."""
        if self.kernels.has_fp8 and self.stored(in_features).kind == "fp8":
            return FP8
        return INT8 if self.kernels.largest_int8 and in_features % INT8_ALIGNMENT == 0 else DENSE

    def from_dense(self, table: Tensor) -> Weight:
        return self.rounded(table, self.head(table.shape[1]))

    def rounded(self, table: Tensor, stored: Packing) -> Weight:
        """table [out, in] rounded to `stored`, and kept as the kernels allow."""
        if stored == DENSE:
            return self.dense.from_dense(table)
        weight, packing = round_to(stored, table, self.kernels), self.kept(stored, table.shape[1])
        return weight if packing == stored else pack(weight, packing, self.kernels, table.dtype)

    def keep(self, weight: QuantizedWeight | DenseWeight, stored: Packing, dtype: torch.dtype) -> Weight:
        """The weight, of the kind `stored`, as the kernels allow, in a model of `dtype`."""
        return pack(weight, self.kept(stored, weight.shape[1]), self.kernels, dtype)

    def kept(self, stored: Packing, in_features: int) -> Packing:
        """The kind that a linear's values are kept as."""
        return packing_for(self.kernels, stored, in_features) or DENSE

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        packing = self.kept(self.stored(in_features), in_features)
        return packing.num_bytes(out_features, in_features, dtype, self.kernels)

    def head_num_bytes(self, out_features: int, in_features: int, dtype: str) -> int | None:
        packing = self.kept(self.head(in_features), in_features)
        return None if packing == DENSE else packing.num_bytes(out_features, in_features, dtype, self.kernels)


def grouped(kind: Kind, in_features: int) -> Packing:
    """4-bit values in groups of the first size that divides the inputs; dense if none does."""
    size = next((size for size in GROUP_SIZES if in_features % size == 0), None)
    return DENSE if size is None else Packing(kind, size)
