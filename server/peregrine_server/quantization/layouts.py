"""The compressed-tensors layouts that are written: scheme, and tensors of a linear."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_server.models.formats.checkpoints.compressed_scheme import FLOATS8, INTEGERS, METHOD, PACKED
from peregrine_server.models.formats.packing import LARGEST_INT8

LAYOUTS = {"int4": PACKED, "int8": INTEGERS, "fp8": FLOATS8}
"""The format that --format names -> the layout that it is stored in."""


SCALES = {"int4": "BF16", "int8": "F32", "fp8": "F32"}
"""Types of the scales, by safetensors' names."""


def quantization_config(name: str, group_size: int) -> dict[str, Any]:
    """config.json's `quantization_config`, with groups of `group_size` inputs if the format has groups.

    compressed-tensors refuses keys that it does not know.
    """
    is_int4 = name == "int4"
    weights: dict[str, Any] = {
        "num_bits": 4 if is_int4 else 8,
        "type": "float" if name == "fp8" else "int",
        "symmetric": True,
        "strategy": "group" if is_int4 else "channel",
        "group_size": group_size if is_int4 else None,
        "dynamic": False,
        "actorder": None,
        "block_structure": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": METHOD,
        "format": LAYOUTS[name],
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def tensors_of(name: str, weight: Tensor, group_size: int) -> Mapping[str, Tensor]:
    """weight [out, in], rounded, as the tensors that a checkpoint holds of a linear, by their names in it."""
    if name == "int4":
        int4 = quantize_int4(weight, group_size)
        shape = torch.tensor(weight.shape)
        return {"weight_packed": int4.packed.view(torch.int32), "weight_scale": int4.scales, "weight_shape": shape}
    quantized = quantize_fp8(weight) if name == "fp8" else quantize_rows(weight, LARGEST_INT8)
    return {"weight": quantized.values, "weight_scale": quantized.scales[:, None]}
