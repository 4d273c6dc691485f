"""The door between a weight format and the model families. Imports no torch: formats are also sized without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource

DENSE = "dense"
"""Name of the format that is not quantized."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by the name of its type."""


class WeightFormat(Protocol):
    """How the linears of a model are stored. Embeddings, norms and biases are always dense."""

    name: str
    """As --quantize names it."""

    @property
    def compute_dtype(self) -> str | None:
        """The dtype that a model with such weights computes in ("bfloat16", ...); None: any."""

    def linear(self, name: str) -> WeightFormat:
        """The format of the linear `name`, by which it is sized: this one, unless a checkpoint mixes several, of which
        this one tells the smallest size."""

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        """Every tensor that a checkpoint holds of the linear `name`, by its name, its bias aside."""

    def refuses(self, leftover: str) -> bool:
        """Whether a tensor of a linear that is not expected changes what the expected ones stand for, by its name
        within the linear ("weight_g_idx"). Others are left out with a warning."""

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        """Reads a rank's slices of linears `(name, slice)`: of their rows (axis 0), one below the other, or of their
        columns (axis 1), side by side."""

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        """Bytes that `load` reads of a rank's share of that size, for the progress: floating-point values count as
        `dtype`."""

    def from_dense(self, table: Tensor) -> Weight:
        """The weight of an output head whose values [out, in] are at hand."""

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        """Bytes of a linear on its device, in a model of `dtype`, its bias aside."""

    def head_num_bytes(self, out_features: int, in_features: int, dtype: str) -> int | None:
        """Bytes of the weight that `from_dense` makes; None: it is dense, and may be the embedding table itself."""


class WeightKernels(Protocol):
    """Attributes of a backend that formats ask for: `peregrine_kernels.Backend` says what each attribute means."""

    @property
    def largest_int8(self) -> int: ...
    @property
    def int8_row_bytes(self) -> int: ...
    @property
    def has_fp8(self) -> bool: ...
    @property
    def int4_group(self) -> int: ...
    @property
    def int4_zero_bytes(self) -> int: ...
    @property
    def has_codebooks(self) -> bool: ...
    @property
    def dequantizes(self) -> bool: ...


def rounds_inputs(format: WeightFormat) -> bool:
    """Whether its linears round their inputs to fp8, too. Formats that others bring along need not say that they round
    none."""
    return bool(getattr(format, "rounds_inputs", False))


@dataclass(frozen=True, slots=True)
class KernelsOfDevice:
    """A device's kernels, to size weights where there is no torch, or no such device."""

    largest_int8: int
    has_fp8: bool
    int4_group: int
    has_codebooks: bool
    dequantizes: bool
    int4_zero_bytes: int = 4
    int8_row_bytes: int = 4
    """The GPU's, as the bytes of a zero point are, and those of every backend that packs neither in its own way."""


CPU_KERNELS = KernelsOfDevice(
    127, has_fp8=False, int4_group=32, has_codebooks=False, dequantizes=True, int4_zero_bytes=2, int8_row_bytes=8
)
"""Kernels of the native backend: tests hold that it has these."""
ALL_KERNELS = KernelsOfDevice(127, has_fp8=True, int4_group=8, has_codebooks=True, dequantizes=False)
"""Every weight stays packed."""


class WeightFormatFactory(Protocol):
    """Makes a format for the backend that will multiply it."""

    def __call__(self, kernels: WeightKernels) -> WeightFormat:
        """Raises UnsupportedWeight if there are no such kernels. Weights are sized, not loaded, without a backend:
        then `kernels` are a KernelsOfDevice."""


class CheckpointFormat(WeightFormat, Protocol):
    """A format that reads quantized weights as a checkpoint holds them."""

    also_named: tuple[str, ...]
    """The names of --quantize that mean it: those of its tool, and of the format that it amounts to ("int4")."""

    def named(self, name: str) -> Self:
        """The same as one of `also_named` means it, where names differ in what is computed."""


class CheckpointFormatFactory(Protocol):
    """Makes the format of a checkpoint."""

    def __call__(self, quantization: Mapping[str, Any], kernels: WeightKernels) -> CheckpointFormat:
        """`quantization` is config.json's `quantization_config`, of which nothing is checked. Raises UnsupportedModel
        for what is not read, or not understood; UnsupportedWeight."""
