"""Layouts of bitsandbytes, packed from the formats' definitions; `write_quantized` writes checkpoints of them."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK, NESTED_BLOCK = 64, 256
_NF4 = "-1 -.6961928 -.5250731 -.3949175 -.2844414 -.1847734 -.0910500 0 .0795803 .1609302 .2461123 .3379152 .4407098"
_MAGNITUDES = 0, 0.0052083, 0.6666667, 1, 0.3333333, 0.5, 0.1666667, 0.25
TABLES = {
    "nf4": torch.tensor([*map(float, _NF4.split()), 0.562617, 0.7229568, 1]),
    "fp4": torch.tensor([*_MAGNITUDES, *(-each for each in _MAGNITUDES)]),
}


@dataclass(frozen=True)
class BitsAndBytes:
    """As transformers saves linears of bitsandbytes."""

    kind: str = "nf4"
    is_nested: bool = False

    def quantization_config(self) -> dict[str, Any]:
        return {
            "quant_method": "bitsandbytes",
            "load_in_8bit": self.kind == "int8",
            "load_in_4bit": self.kind != "int8",
            "llm_int8_threshold": 6.0,
            "llm_int8_skip_modules": ["lm_head"],
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": self.kind if self.kind != "int8" else "fp4",
            "bnb_4bit_use_double_quant": self.is_nested,
        }

    def quantize(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return quantize_int8(weight) if self.kind == "int8" else self.quantize_4_bit(weight)

    def quantize_4_bit(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Blocks follow one another through the rows; the last may be short."""
        table, flat = TABLES[self.kind], weight.flatten()
        blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
        stored, absmax, offset = self.scales(blocks.abs().amax(1))
        codes = ((blocks / absmax[:, None])[..., None] - table).abs().argmin(-1)
        values = (table[codes] * absmax[:, None]).flatten()[: len(flat)].view_as(weight)
        codes = codes.flatten()[: len(flat)].to(torch.uint8)
        state = {"quant_type": self.kind, "blocksize": BLOCK, "dtype": "float32", "shape": list(weight.shape)}
        if self.is_nested:
            state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": offset}
        return {
            "weight": (codes[::2] << 4 | codes[1::2])[:, None],
            "weight.quant_map": table.clone(),
            f"weight.quant_state.bitsandbytes__{self.kind}": torch.tensor(list(json.dumps(state).encode())).byte(),
            **stored,
        }, values

    def scales(self, absmax: Tensor) -> tuple[dict[str, Tensor], Tensor, float]:
        """The tensors of the blocks' scales, the scales that they stand for, and their offset."""
        if not self.is_nested:
            return {"weight.absmax": absmax}, absmax, 0.0
        # Any table of 256 does: the file brings it.
        table, offset = torch.linspace(-1, 1, 256), absmax.mean()
        blocks = torch.nn.functional.pad(absmax - offset, (0, -len(absmax) % NESTED_BLOCK)).view(-1, NESTED_BLOCK)
        largest = blocks.abs().amax(1)
        codes = ((blocks / largest[:, None])[..., None] - table).abs().argmin(-1)
        values = (table[codes] * largest[:, None]).flatten()[: len(absmax)] + offset
        codes = codes.flatten()[: len(absmax)].to(torch.uint8)
        stored = {"weight.absmax": codes, "weight.nested_absmax": largest, "weight.nested_quant_map": table}
        return stored, values, float(offset)


LAYOUTS = {
    "bitsandbytes int8": BitsAndBytes("int8"),
    "bitsandbytes nf4": BitsAndBytes("nf4"),
    "bitsandbytes fp4": BitsAndBytes("fp4"),
    "bitsandbytes nested nf4": BitsAndBytes("nf4", is_nested=True),
    "bitsandbytes nested fp4": BitsAndBytes("fp4", is_nested=True),
}


def quantize_int8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Rows by their largest value, SCB."""
    largest = weight.abs().amax(1)
    q = (weight * 127 / largest[:, None]).round().to(torch.int8)
    stored = {"weight": q, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return stored, q * largest[:, None] / 127
