"""GPTQ's layouts, as AutoGPTQ and GPTQModel write them: v1 and v2, of 4 and 8 bits."""

from collections.abc import Mapping
from typing import Any

from peregrine_server.models.formats.checkpoints.input_major import InputMajorFormat, InputMajorScheme
from peregrine_server.models.formats.checkpoints.scheme import expect, expect_group_size, first_of
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels

GPTQ = "gptq"
V1, V2 = "gptq", "gptq_v2"


class GptqFormat(InputMajorFormat):
    """Words of inputs; zero points less one in v1; with act-order, groups of inputs that are not consecutive."""

    def __init__(self, quantization: Mapping[str, Any], kernels: WeightKernels = ALL_KERNELS) -> None:
        super().__init__(GPTQ, read_scheme(quantization), kernels)


def read_scheme(quantization: Mapping[str, Any]) -> InputMajorScheme:
    """Reads `quantization_config` or quantize_config.json. Raises UnsupportedModel for what is not understood."""
    bits: Any = quantization.get("bits")
    group_size = quantization.get("group_size", -1)
    expect("bits", bits, 4, 8)
    layout = first_of(quantization, "checkpoint_format", "format", default=V1)
    expect("checkpoint_format", layout, V1, V2)
    expect("is_marlin_format", first_of(quantization, "is_marlin_format", default=False), False)
    expect("pack_dtype", first_of(quantization, "pack_dtype", default="int32"), "int32")
    expect("dynamic", quantization.get("dynamic") or None, None)  # Settings of single linears.
    is_symmetric = quantization.get("sym", True)
    expect("sym", is_symmetric, True, False)
    has_act_order = first_of(quantization, "desc_act", default=False)
    expect("desc_act", has_act_order, True, False)
    if group_size != -1:
        expect_group_size(group_size)
    return InputMajorScheme(
        num_bits=bits,
        group_size=None if group_size == -1 else group_size,
        is_symmetric=is_symmetric,
        packs_inputs=True,
        places=tuple(range(32 // bits)),
        zero_offset=1 if layout == V1 else 0,
        has_groups=True,
        # Of one group any order is the same.
        is_ordered=not has_act_order or group_size == -1,
    )
