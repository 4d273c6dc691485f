"""The demo Falcon with linears of 8 bits."""

from pathlib import Path

import pytest
import torch

import peregrine_server
from cpu_backends import native
from falcons import falcon_config, forward, load, model_context
from peregrine_kernels import PagedBatch
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.models.falcon.footprint import weight_bytes
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.formats.int8 import Int8Format

DEMO = Path(peregrine_server.__file__).parent / "demo"
HELD_OUT = Path(__file__).parents[4] / "scripts" / "demo" / "heldout.txt"
LENGTH, BLOCK_SIZE = 512, 64


def demo(quantize: str | None) -> Falcon:
    return load(DEMO, model_context(torch.bfloat16, quantize=quantize))


def nats(model: Falcon, ids: torch.Tensor) -> float:
    """The mean loss of the tokens after the first."""
    positions, blocks = torch.arange(LENGTH), LENGTH // BLOCK_SIZE
    batch = PagedBatch(positions, positions, torch.arange(blocks)[None], (LENGTH,), (LENGTH,), 0)
    hidden = forward(model, ids, batch, model.allocate_cache(blocks, BLOCK_SIZE))
    return torch.nn.functional.cross_entropy(model.logits(hidden[:-1]), ids[1:]).item()


@pytest.mark.slow
@native
def test_int8_predicts_as_well_as_bfloat16() -> None:
    """On held-out text the quantized demo needs at most half a per cent more nats a token, on 1,024 tokens."""
    ids = torch.tensor(Tokenizer.load(DEMO).encode(HELD_OUT.read_text()[:20_000]))
    parts = [ids[:LENGTH], ids[LENGTH : 2 * LENGTH]]
    exact, quantized = demo(None), demo("int8")
    assert sum(nats(quantized, part) for part in parts) < 1.005 * sum(nats(exact, part) for part in parts)


@native
def test_int8_weights_take_a_byte_each() -> None:
    """The loaded model reports the size that `footprint` computes: linears of half the bytes."""
    model, config = demo("int8"), falcon_config(DEMO)
    assert model.weight_bytes == weight_bytes(config, 1, "bfloat16", Int8Format(), has_packed_head=True)
    assert model.weight_bytes < 0.65 * weight_bytes(config, 1, "bfloat16", has_packed_head=True)
