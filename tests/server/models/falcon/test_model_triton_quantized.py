"""Quantized models on the GPU's kernels, under Triton's interpreter, against the same weights dequantized."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import build_model, write_checkpoint
from falcons import forward, load, model_context
from peregrine_kernels import Backend, DenseWeight, Linear, PagedBatch, Weight
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_kernels.reference.rounded_inputs import RoundedInputs
from peregrine_kernels.weights import Float8Weight, QuantizedWeight, dequantized
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.formats.interface import ALL_KERNELS
from peregrine_server.models.formats.registry import FORMATS

PROMPT, NUM_GENERATED = [5, 17, 203, 41, 99], 3
BLOCK_SIZE = 16


class Dequantizing(ReferenceBackend):
    """The reference, on the values that the GPU's packed weights, and rounded inputs, stand for."""

    largest_int8, has_fp8 = ALL_KERNELS.largest_int8, ALL_KERNELS.has_fp8
    int4_group, has_codebooks = ALL_KERNELS.int4_group, ALL_KERNELS.has_codebooks

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if not isinstance(weight, QuantizedWeight):
            return super().linear(weight, bias, activation)
        linear = super().linear(DenseWeight(dequantized(weight, torch.float32)), bias, activation)
        return RoundedInputs(linear) if isinstance(weight, Float8Weight) and weight.rounds_inputs else linear


def batch(start: int, count: int) -> PagedBatch:
    """Tokens of one sequence, all of whose blocks are the first."""
    positions = torch.arange(start, start + count)
    tables = torch.zeros(1, 1, dtype=torch.int64)
    return PagedBatch(positions, positions, tables, (count,), (start + count,), num_decodes=int(count == 1))


def generated(model: Falcon) -> tuple[list[int], Tensor]:
    """The prompt and the tokens after it, and the logits of all."""
    cache, tokens, logits = model.allocate_cache(1, BLOCK_SIZE), list(PROMPT), torch.empty(0)
    for _ in range(NUM_GENERATED):
        step = torch.tensor(tokens[len(logits) :])
        found = model.logits(forward(model, step, batch(len(logits), len(step)), cache))
        logits = torch.cat((logits.view(-1, found.shape[1]), found))
        tokens.append(int(found[-1].argmax()))
    return tokens, logits


@pytest.mark.parametrize("quantize", FORMATS)
def test_a_quantized_model_computes_what_its_weights_stand_for(quantize: str, tmp_path: Path) -> None:
    """A prompt and decodes of every format: the reference's tokens on the dequantized weights, and logits to 1e-4."""
    path = write_checkpoint(tmp_path, build_model("7b", num_hidden_layers=1))
    backends: list[Backend] = [TritonBackend(), Dequantizing()]
    packed, dense = (
        generated(load(path, model_context(torch.float32, backend, quantize=quantize))) for backend in backends
    )
    assert packed[0] == dense[0]
    torch.testing.assert_close(packed[1], dense[1], rtol=0, atol=1e-4)


def test_the_kernels_are_those_that_weights_are_sized_for() -> None:
    """Formats are sized without a GPU as its backend keeps them packed."""
    backend = TritonBackend()
    assert all(getattr(backend, each.name) == getattr(ALL_KERNELS, each.name) for each in fields(ALL_KERNELS))
