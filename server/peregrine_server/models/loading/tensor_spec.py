"""The tensors that a checkpoint is expected to hold. Imports no torch: formats also name them without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = "F64", "F32", "F16", "BF16"
"""safetensors' names of the types of weights that are not quantized."""


class TensorSpec(NamedTuple):
    """A tensor that a checkpoint is expected to hold."""

    shape: tuple[int, ...]
    """-1 stands for any size."""
    dtypes: tuple[str, ...] = FLOATS
    """The types that it may have, by safetensors' names; of more than one it is read in the serving dtype."""
    fault: Callable[[Tensor], str | None] | None = None
    """Says of the values of a small tensor, as they are stored, what is wrong and what to do; None if nothing is. It is
    asked before any other tensor is read."""
