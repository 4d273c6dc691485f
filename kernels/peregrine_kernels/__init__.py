"""Tensor kernels: a model's operations behind one interface, one implementation a device. Imports nothing of ours.

What the server imports is named here; the rest of the package imports from the modules themselves.
"""

from peregrine_kernels.interface import (
    Affine,
    Backend,
    FusedLayer,
    FusedModel,
    FusedOps,
    LayerParts,
    Linear,
    LinearInto,
    ModelParts,
    Rotary,
    Sample,
)
from peregrine_kernels.kv_cache import KVCache, PagedBatch
from peregrine_kernels.select import backend_for
from peregrine_kernels.weights import DenseWeight, Int8Weight, UnsupportedWeight, Weight

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
    "LinearInto",
    "ModelParts",
    "PagedBatch",
    "Rotary",
    "Sample",
    "UnsupportedWeight",
    "Weight",
    "backend_for",
]
