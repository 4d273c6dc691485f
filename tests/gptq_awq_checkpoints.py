"""Layouts of GPTQ and AWQ, packed from the formats' definitions; `write_quantized` writes checkpoints of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ORDER = 0, 2, 4, 6, 1, 3, 5, 7
"""Which output each four bits of AWQ's words hold, from the lowest."""


@dataclass(frozen=True)
class Gptq:
    """As AutoGPTQ and GPTQModel store linears."""

    num_bits: int = 4
    group_size: int = 16
    is_symmetric: bool = True
    has_act_order: bool = False
    version: int = 1

    def quantization_config(self) -> dict[str, Any]:
        return {
            "quant_method": "gptq",
            "bits": self.num_bits,
            "group_size": self.group_size,
            "desc_act": self.has_act_order,
            "sym": self.is_symmetric,
            "damp_percent": 0.01,
            "true_sequential": True,
            "static_groups": False,
            "is_marlin_format": False,
            **({"checkpoint_format": "gptq_v2"} if self.version == 2 else {}),
        }

    def groups(self, num_inputs: int) -> Tensor:
        """int64[K]: each input's group; with act-order those of a random order."""
        groups = torch.arange(num_inputs) // (num_inputs if self.group_size == -1 else self.group_size)
        if not self.has_act_order:
            return groups
        return groups[torch.randperm(num_inputs, generator=torch.Generator().manual_seed(0))]

    def quantize(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        groups = self.groups(weight.shape[1])
        q, scales, zeros, values = rounded(weight, groups, self.num_bits, self.is_symmetric)
        stored_zeros = zeros - 1 if self.version == 1 else zeros
        return {
            "qweight": words(q, self.num_bits).T,
            "qzeros": words(stored_zeros.T, self.num_bits),
            "scales": scales.T,
            "g_idx": groups.int(),
            "bias": torch.zeros(len(weight)),
        }, values


@dataclass(frozen=True)
class Awq:
    """As AutoAWQ stores linears for its kernel "gemm"."""

    group_size: int = 16

    def quantization_config(self) -> dict[str, Any]:
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": self.group_size,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
        }

    def quantize(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        groups = torch.arange(weight.shape[1]) // self.group_size
        q, scales, zeros, values = rounded(weight, groups, 4, is_symmetric=False)
        qweight, qzeros = (words(each.T.unflatten(1, (-1, 8))[..., ORDER].flatten(1), 4) for each in (q, zeros))
        return {"qweight": qweight, "qzeros": qzeros, "scales": scales.T}, values


INPUT_MAJOR: dict[str, Gptq | Awq] = {
    "gptq": Gptq(),
    "gptq ragged": Gptq(group_size=48),
    "gptq of rows with act-order": Gptq(group_size=-1, has_act_order=True),
    "gptq with act-order": Gptq(has_act_order=True),
    "gptq v2 with zeros": Gptq(is_symmetric=False, version=2),
    "gptq v2 with act-order": Gptq(has_act_order=True, version=2),
    "gptq with zeros and act-order": Gptq(group_size=48, is_symmetric=False, has_act_order=True),
    "gptq of 8 bits": Gptq(num_bits=8, group_size=-1),
    "gptq of 8 bits with zeros": Gptq(num_bits=8, group_size=48, is_symmetric=False),
    "awq": Awq(),
}


def rounded(weight: Tensor, groups: Tensor, num_bits: int, is_symmetric: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """weight [N, K] -> integers [N, K], scales of 16 bits and zeros [N, G], and values (q - zero) * scale [N, K]."""
    num_groups, largest = int(groups.max()) + 1, 2**num_bits - 1
    parts = [weight[:, groups == group] for group in range(num_groups)]
    lowest = torch.stack([part.amin(1).clamp(max=0) for part in parts], 1)
    highest = torch.stack([part.amax(1).clamp(min=0) for part in parts], 1)
    if is_symmetric:
        highest = torch.maximum(-lowest, highest)
        lowest = -highest
    scales = ((highest - lowest) / largest).half()
    # v1 has no word for zeros of 0.
    zeros = (-lowest / scales).round().clamp(1, largest)
    if is_symmetric:
        zeros = torch.full_like(zeros, 2 ** (num_bits - 1))
    q = (weight / scales[:, groups] + zeros[:, groups]).round().clamp(0, largest)
    return q, scales, zeros, (q - zeros[:, groups]) * scales[:, groups].float()


def words(values: Tensor, num_bits: int) -> Tensor:
    """Integers [R, C] -> int32[R, C / n]: n in a word, the first in its lowest bits."""
    shifts = torch.arange(0, 32, num_bits)
    packed: Tensor = (values.long().unflatten(1, (-1, 32 // num_bits)) << shifts).sum(2)
    return packed.to(torch.int32)
