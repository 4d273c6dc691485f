"""A loaded Falcon: fused calls, and the steps that may take them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import build_model, write_checkpoint
from falcons import load, model_context
from paged_cases import page_batch
from peregrine_kernels import PagedBatch
from peregrine_server.models.interface import AdapterRows, ForwardContext


class Refusing:
    """A fused model that must not be called."""

    def __call__(self, token_ids: Tensor, batch: PagedBatch, pages: tuple[Tensor, ...]) -> Tensor:
        raise AssertionError("fused")

    def logits(self, token_ids: Tensor, batch: PagedBatch, pages: tuple[Tensor, ...], rows: Tensor | None) -> Tensor:
        raise AssertionError("fused")


def test_a_step_with_adapters_takes_no_fused_call(tmp_path: Path) -> None:
    """Fused calls know no adapters: such a step goes through the single linears, to the same logits."""
    model = load(write_checkpoint(tmp_path, build_model("7b")), model_context(torch.bfloat16))
    fused = replace(model, fused=Refusing())
    batch, num_blocks = page_batch([(9, 9)], 16)
    token_ids, adapters = torch.arange(9), AdapterRows(torch.full((9,), -1))
    cache = model.allocate_cache(num_blocks, 16)
    with pytest.raises(AssertionError, match="fused"):
        fused.next_logits(token_ids, ForwardContext(batch, cache))
    logits = fused.next_logits(token_ids, ForwardContext(batch, cache, adapters))
    torch.testing.assert_close(logits, model.next_logits(token_ids, ForwardContext(batch, cache)), rtol=0.02, atol=0.02)


@torch.inference_mode()
def test_dynamic_rope_generates_as_transformers(tmp_path: Path) -> None:
    """A prompt and its continuation beyond the trained length have the logits of transformers' cached generation."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    oracle = build_model("40b", rope_parameters=rope, max_position_embeddings=16)
    model = load(write_checkpoint(tmp_path, oracle), model_context(torch.float32))
    token_ids = torch.arange(40) % 300
    step = oracle(token_ids[None, :16], use_cache=True)
    logits = [step.logits[0]]
    for at in range(16, 40):
        step = oracle(token_ids[None, at : at + 1], cache=step.past_key_values, use_cache=True)
        logits.append(step.logits[0])
    batch, num_blocks = page_batch([(40, 40)], 16)
    found = model.next_logits(token_ids, ForwardContext(batch, model.allocate_cache(num_blocks, 16)))
    torch.testing.assert_close(found, torch.cat(logits), atol=1e-4, rtol=0)
