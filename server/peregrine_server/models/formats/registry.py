"""The weight formats by name. Imports no torch.

A format outside of this package is an entry point of the group `peregrine.weight_formats`: its name is what --quantize
takes, its value a `WeightFormatFactory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.awq import AWQ, AwqFormat
from peregrine_server.models.formats.checkpoints.bitsandbytes import BITSANDBYTES, BitsAndBytesFormat
from peregrine_server.models.formats.checkpoints.compressed_scheme import METHOD
from peregrine_server.models.formats.checkpoints.compressed_tensors import CompressedTensorsFormat
from peregrine_server.models.formats.checkpoints.gguf import GgufFormat
from peregrine_server.models.formats.checkpoints.gguf_types import GGUF
from peregrine_server.models.formats.checkpoints.gptq import GPTQ, GptqFormat
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.fp8 import Fp8Format, Fp8W8A8Format
from peregrine_server.models.formats.int4 import Int4Format
from peregrine_server.models.formats.int8 import Int8Format
from peregrine_server.models.formats.interface import (
    ALL_KERNELS,
    CheckpointFormatFactory,
    WeightFormat,
    WeightFormatFactory,
    WeightKernels,
)
from peregrine_server.models.formats.nf4 import Nf4Format
from peregrine_server.models.plugins import plugin, plugin_names

FORMATS: dict[str, WeightFormatFactory] = {
    "int8": Int8Format,
    "fp8": Fp8Format,
    "fp8-w8a8": Fp8W8A8Format,
    "int4": Int4Format,
    "nf4": Nf4Format,
}
"""The formats of this package that --quantize names."""
LAYOUTS: dict[str, CheckpointFormatFactory] = {
    METHOD: CompressedTensorsFormat,
    GPTQ: GptqFormat,
    AWQ: AwqFormat,
    BITSANDBYTES: BitsAndBytesFormat,
    GGUF: GgufFormat,
}
"""quant_method of a checkpoint's `quantization_config` -> the format that reads it."""
STORED = {
    **dict.fromkeys((GPTQ, AWQ, "marlin", "exl2", METHOD, GGUF), "int4"),
    "bitsandbytes-fp4": "nf4, which is as small and nearer to the weights",
}
"""Names that --quantize takes for what a quantized checkpoint holds -> what to choose instead for one that is not:
nothing is rounded to them."""
ENTRY_POINTS = "peregrine.weight_formats"


def weight_format(name: str | None, kernels: WeightKernels = ALL_KERNELS) -> WeightFormat:
    """The format that --quantize names, for a backend, or sized for a device; None is dense.

    Raises ValueError for an unknown name, PluginError, UnsupportedWeight if the backend has no kernels for it.
    """
    if name is None:
        return DenseFormat(kernels)
    if name in FORMATS:
        return FORMATS[name](kernels)
    factory: WeightFormatFactory | None = plugin(ENTRY_POINTS, name)
    if factory is not None:
        return factory(kernels)
    raise ValueError(f"--quantize {name} is not known: choose one of {', '.join(format_names())}, or leave it out")


def stored_format(
    quantization: Mapping[str, Any] | None, name: str | None, kernels: WeightKernels = ALL_KERNELS
) -> WeightFormat:
    """The format of a checkpoint with that `quantization_config`, None for floating-point weights, of which --quantize
    says `name`.

    Raises ValueError where the two do not fit, UnsupportedModel for a layout that is not read, UnsupportedWeight.
    """
    if quantization is None:
        if name in STORED:
            raise ValueError(
                f"--quantize {name}: the checkpoint's weights are not quantized: leave it out, or choose {STORED[name]}"
            )
        return weight_format(name, kernels)
    method = quantization.get("quant_method")
    if not isinstance(method, str) or method not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise UnsupportedModel(
            f"weights quantized by {method!r:.80} are not read ({known} are): give the original ones"
        )
    found = LAYOUTS[method](quantization, kernels)
    if name is not None and name not in found.also_named:
        raise ValueError(f"--quantize {name}: the checkpoint's weights are {found.name} already: leave it out")
    return found if name is None else found.named(name)


def format_names() -> tuple[str, ...]:
    """The names of formats that --quantize takes for any checkpoint."""
    return (*FORMATS, *plugin_names(ENTRY_POINTS))
