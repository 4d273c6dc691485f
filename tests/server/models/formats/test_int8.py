"""The demo Falcon with linears of 8 bits."""

from pathlib import Path

import torch

import peregrine_server
from cpu_backends import native
from falcons import falcon_config, load, model_context
from peregrine_server.models.falcon.footprint import weight_bytes
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.formats.int8 import Int8Format
from peregrine_server.models.formats.interface import CPU_KERNELS

DEMO = Path(peregrine_server.__file__).parent / "demo"


def demo(quantize: str | None) -> Falcon:
    return load(DEMO, model_context(torch.bfloat16, quantize=quantize))


@native
def test_int8_weights_take_a_byte_each() -> None:
    """The loaded model reports the size that `footprint` computes: linears of half the bytes."""
    model, config = demo("int8"), falcon_config(DEMO)
    assert model.weight_bytes == weight_bytes(config, 1, "bfloat16", Int8Format(CPU_KERNELS), has_packed_head=True)
    assert model.weight_bytes < 0.65 * weight_bytes(config, 1, "bfloat16", has_packed_head=True)
