"""Tensor kernels: a model's operations behind one interface, one implementation a device. Imports nothing of ours.

What the server imports is named here; the rest of the package imports from the modules themselves.
"""

from peregrine_kernels.interface import (
    Affine,
    Backend,
    DenseWeight,
    FusedLayer,
    FusedModel,
    FusedOps,
    Int8Weight,
    LayerParts,
    Linear,
    ModelParts,
    Rotary,
    Sample,
    UnsupportedWeight,
    Weight,
)
from peregrine_kernels.kv_cache import KVCache, PagedBatch
from peregrine_kernels.select import backend_for

__all__ = [
    "Affine",
    "Backend",
    "DenseWeight",
    "FusedLayer",
    "FusedModel",
    "FusedOps",
    "Int8Weight",
    "KVCache",
    "LayerParts",
    "Linear",
    "ModelParts",
    "PagedBatch",
    "Rotary",
    "Sample",
    "UnsupportedWeight",
    "Weight",
    "backend_for",
]
