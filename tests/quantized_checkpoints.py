"""Quantized checkpoints, and the model that each stands for; compressed-tensors' layouts, packed from their
definition."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import FalconForCausalLM

from checkpoints import build_model, config_json, write_tensors


class StoredLayout(Protocol):
    """How a tool stores linears."""

    def quantization_config(self) -> dict[str, Any]:
        """As the tool writes it."""

    def quantize(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The tensors that are stored of weight [N, K], and the values that they stand for."""


@dataclass(frozen=True)
class Layout:
    """A scheme of compressed-tensors."""

    format: str
    num_bits: int = 8
    is_symmetric: bool = True
    strategy: str = "channel"
    group_size: int | None = None

    def quantization_config(self) -> dict[str, Any]:
        """As llm-compressor writes it."""
        kind = "float" if self.format == "float-quantized" else "int"
        weights = {"num_bits": self.num_bits, "type": kind, "symmetric": self.is_symmetric, "dynamic": False}
        weights |= {"strategy": self.strategy, "group_size": self.group_size, "actorder": None, "observer": "minmax"}
        weights |= {"block_structure": None, "observer_kwargs": {}}
        group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": self.format,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }

    def quantize(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return quantize(weight, self)


LAYOUTS = {
    "int4": Layout("pack-quantized", 4, strategy="group", group_size=16),
    "int4 with zeros": Layout("pack-quantized", 4, is_symmetric=False, strategy="group", group_size=16),
    "int4 in rows": Layout("pack-quantized", 4),
    "packed int8": Layout("pack-quantized", 8),
    "packed int8 in groups with zeros": Layout("pack-quantized", 8, is_symmetric=False, strategy="group", group_size=8),
    "int8": Layout("int-quantized"),
    "int8 with zeros": Layout("int-quantized", is_symmetric=False),
    "int8 of one scale": Layout("int-quantized", strategy="tensor"),
    "fp8": Layout("float-quantized"),
    "fp8 of one scale": Layout("float-quantized", strategy="tensor"),
}


def write_quantized(path: Path, variant: str, layout: StoredLayout, **overrides: Any) -> FalconForCausalLM:
    """Writes a checkpoint with linears of that layout; returns the model of the values that they stand for."""
    model = build_model(variant, **overrides)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    for name, linear in linears(model):
        del tensors[f"{name}.weight"]
        stored, values = layout.quantize(linear.weight.detach())
        # Zeros that a tool writes for a bias are for models without one.
        tensors = {**{f"{name}.{kind}": tensor.contiguous() for kind, tensor in stored.items()}, **tensors}
        with torch.no_grad():
            linear.weight.copy_(values)
    path.mkdir(parents=True, exist_ok=True)
    config = {**config_json(model.config), "quantization_config": layout.quantization_config()}
    (path / "config.json").write_text(json.dumps(config))
    write_tensors(path, tensors)
    return model


def linears(model: FalconForCausalLM) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The linears of the blocks by name."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".h." in name:
            yield name, module


def quantize(weight: Tensor, layout: Layout) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors that a layout stores of weight [N, K], and the values that they stand for."""
    groups = weight.unflatten(1, (-1, layout.group_size or weight.shape[1]))
    if layout.strategy == "tensor":
        groups = weight.flatten()[None, None]
    scale, zero = scales_and_zeros(groups, layout)
    lowest, highest = -(2 ** (layout.num_bits - 1)), 2 ** (layout.num_bits - 1) - 1
    if layout.format == "float-quantized":
        q = (groups / scale[..., None]).to(torch.float8_e4m3fn)
    else:
        q = (groups / scale[..., None] + zero[..., None]).round().clamp(lowest, highest).to(torch.int8)
    values = ((q.float() - zero[..., None]) * scale[..., None]).reshape(weight.shape)
    return tensors_of(q.reshape(weight.shape), scale, zero, layout), values


def scales_and_zeros(groups: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """[N, G] each; zero points are whole, and 0 where the layout has none."""
    # Zero is among the values, so that its integer is one of the type's.
    lowest, highest = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    if layout.is_symmetric:
        largest = 448 if layout.format == "float-quantized" else 2 ** (layout.num_bits - 1) - 1
        return groups.abs().amax(-1) / largest, torch.zeros_like(lowest)
    scale = (highest - lowest) / (2**layout.num_bits - 1)
    return scale, (-(2 ** (layout.num_bits - 1)) - lowest / scale).round()


def tensors_of(q: Tensor, scale: Tensor, zero: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Integers or fp8 [N, K] with scales and zeros as the layout names and packs them."""
    stored = {"weight_scale": scale.flatten() if layout.strategy == "tensor" else scale}
    if layout.format == "pack-quantized":
        stored["weight_packed"] = words(q, layout.num_bits)
        stored["weight_shape"] = torch.tensor(q.shape)
    else:
        stored["weight"] = q
    if not layout.is_symmetric:
        zero = zero.to(torch.int8)
        is_packed = layout.format == "pack-quantized"
        stored["weight_zero_point"] = words(zero.T, layout.num_bits).T if is_packed else zero
    return stored


def words(q: Tensor, num_bits: int) -> Tensor:
    """Integers [N, K] -> int32[N, K / n]: n in a word, the first in its lowest bits, above their lowest value; zeros
    fill the last."""
    per_word = 32 // num_bits
    unsigned = torch.nn.functional.pad(q.long() + 2 ** (num_bits - 1), (0, -q.shape[1] % per_word))
    shifts = torch.arange(0, 32, num_bits)
    packed: Tensor = (unsigned.unflatten(1, (-1, per_word)) << shifts).sum(2)
    return packed.to(torch.int32)
