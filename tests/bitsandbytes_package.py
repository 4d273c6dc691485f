"""bitsandbytes' own package: Falcons that transformers saves with it, and what it reads of a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor
from transformers import BitsAndBytesConfig, FalconForCausalLM
from transformers.models.falcon import modeling_falcon

from checkpoints import build_model, write_checkpoint
from quantized_checkpoints import linears

SETTINGS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nested nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "nested fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
}
"""The arguments of BitsAndBytesConfig."""


def save_quantized(path: Path, variant: str, settings: dict[str, Any], **overrides: Any) -> FalconForCausalLM:
    """Has transformers quantize a model in bfloat16 and save it; returns the model of the values that the package reads
    in the file."""
    before = write_checkpoint(path / "before", build_model(variant, torch.bfloat16, **overrides))
    _load(before, torch.bfloat16, quantization_config=BitsAndBytesConfig(**settings)).save_pretrained(path)
    return read_quantized(path)


def read_quantized(path: Path) -> FalconForCausalLM:
    """The model in float32, with linears as transformers reads them from a quantized checkpoint, dequantized."""
    model = _load(path, torch.float32)
    for name, linear in list(linears(model)):
        plain = torch.nn.Linear(linear.in_features, linear.out_features, linear.bias is not None)
        plain.weight, plain.bias = torch.nn.Parameter(dequantized(linear)), linear.bias
        model.set_submodule(name, plain)
    # transformers keeps some of the file's bfloat16, and refuses its own `to` for a model that was quantized.
    torch.nn.Module.to(model, torch.float32)
    return model


def dequantized(linear: torch.nn.Linear) -> Tensor:
    """float32[out, in]: the values of a linear by the package's functions."""
    weight: Any = linear.weight
    if isinstance(linear, Linear8bitLt):
        values: Tensor = int8_vectorwise_dequant(weight.data, weight.SCB)
        return values
    assert isinstance(linear, Linear4bit)
    state, shape = weight.quant_state, weight.quant_state.shape
    # As one row: blocks go on from row to row, which the package's loop for AVX512 (0.50.2) has begin anew in each.
    state.dtype, state.shape = torch.float32, torch.Size([shape.numel()])
    return dequantize_4bit(weight.data, state).view(shape)


def _load(path: Path, dtype: torch.dtype, **settings: Any) -> FalconForCausalLM:
    """The model by transformers, with bitsandbytes' linears where the settings, or the checkpoint's, say so."""
    with pytest.MonkeyPatch.context() as patch:
        # transformers 5 passes over linears of a class of their own, which Falcon's are; 4 did not.
        patch.setattr(modeling_falcon, "FalconLinear", torch.nn.Linear)
        model: FalconForCausalLM = FalconForCausalLM.from_pretrained(path, dtype=dtype, **settings)
    return model
