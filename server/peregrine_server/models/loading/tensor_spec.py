"""The tensors that a checkpoint is expected to hold. Imports no torch: formats also name them without it."""

from typing import NamedTuple

FLOATS = "F64", "F32", "F16", "BF16"
"""safetensors' names of the types of weights that are not quantized."""


class TensorSpec(NamedTuple):
    """A tensor that a checkpoint is expected to hold."""

    shape: tuple[int, ...]
    """-1 stands for any size."""
    dtypes: tuple[str, ...] = FLOATS
    """The types that it may have, by safetensors' names; of more than one it is read in the serving dtype."""
