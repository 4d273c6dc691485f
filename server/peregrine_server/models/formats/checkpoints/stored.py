"""Formats that read quantized weights as a checkpoint holds them: the common part. Imports no torch."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Self

from peregrine_server.models.formats.packing import DENSE, Packing
from peregrine_server.models.formats.quantized import KEPT_GROUP, MIN_GROUP, QuantizedFormat

if TYPE_CHECKING:
    import torch

    from peregrine_kernels import DenseWeight, Weight
    from peregrine_kernels.weights import QuantizedWeight

SCALE_BYTES = 4
"""Bytes of a scale as it is read."""


class StoredFormat(QuantizedFormat):
    """Linears as the checkpoint holds them; the output head is rounded as in other formats."""

    def named(self, name: str) -> Self:
        return self

    @abstractmethod
    def groups_of(self, size: int) -> Packing:
        """The kind of 4-bit values in groups of `size` inputs."""

    def in_groups(self, group_size: int | None, in_features: int) -> Packing:
        """The kind of 4-bit values that have groups of `group_size` in the checkpoint, None: one of a row."""
        size = math.gcd(KEPT_GROUP, group_size or in_features, in_features)
        return self.groups_of(size) if size % MIN_GROUP == 0 else DENSE

    def keep_read(self, weight: QuantizedWeight | DenseWeight, dtype: torch.dtype) -> Weight:
        """A weight that was read, as the kernels allow, in a model of `dtype`."""
        # The slices of some ranks have smaller groups than widths alone tell.
        size = getattr(weight, "group_size", None)
        return self.keep(weight, self.stored(weight.shape[1]) if size is None else self.groups_of(size), dtype)
