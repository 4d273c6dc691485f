"""Random 4-bit weights, and what the CPU kernels make of an input that meets them."""

import torch
from torch import Tensor

from peregrine_kernels.weights import Int4Weight, pack_nibbles


def random_int4(num_outputs: int, num_inputs: int, group_size: int = 64, has_zeros: bool = False) -> Int4Weight:
    """Scales of both signs; integer zero points, as checkpoints have them."""
    groups = num_outputs, num_inputs // group_size
    integers = torch.randint(16, (num_outputs, num_inputs), dtype=torch.uint8)
    zeros = torch.randint(16, groups).float() if has_zeros else None
    return Int4Weight(pack_nibbles(integers), (torch.randn(groups) / 64).bfloat16(), group_size, zeros)


def rounded_inputs(x: Tensor) -> Tensor:
    """float64: x [T, in] as the kernels quantize it, to 8 bits with a scale for each row."""
    scales = x.float().abs().amax(1, keepdim=True).clamp(min=1e-20) / 127
    return (x.float() * (1 / scales)).round().double() * scales
