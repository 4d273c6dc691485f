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
