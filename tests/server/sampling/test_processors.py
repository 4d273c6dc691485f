"""Logits processors at ties, against transformers' own."""

import pytest
import torch
from transformers import TopPLogitsWarper, TypicalLogitsWarper

from peregrine_server.sampling.processors import (
    NEVER,
    divide_by_temperature,
    forbid,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)

KNOWN = [3, 5, 5, 8, 13, 21]


@pytest.mark.parametrize("vocab", [16, 17, 300, 5000])
def test_ties_at_the_boundary_of_top_p(vocab: int) -> None:
    """As many tokens stay as with transformers, whose sort leaves open which; of equal ones the highest ids."""
    logits = torch.randint(4, (8, vocab), generator=torch.Generator().manual_seed(vocab)).float()
    kept = keep_top_p(logits, torch.full((8, 1), 0.8)) > NEVER
    assert torch.equal(kept.sum(-1), (TopPLogitsWarper(0.8)(torch.tensor([KNOWN]), logits) > NEVER).sum(-1))
    for row, is_kept in zip(logits, kept, strict=True):
        least = row[is_kept].min()
        assert is_kept[row > least].all()
        assert not is_kept[row < least].any()
        tied = is_kept[row == least].tolist()
        assert tied == sorted(tied)


def test_ties_at_the_boundary_of_typical_p_stay() -> None:
    """All of them, as with transformers."""
    logits = torch.randint(4, (8, 300), generator=torch.Generator().manual_seed(0)).float()
    want = TypicalLogitsWarper(0.6)(torch.tensor([KNOWN]), logits)
    assert torch.equal(keep_typical(logits, torch.full((8, 1), 0.6)), want)
    assert len(want[want > NEVER].unique()) < 4


def test_no_processor_changes_its_arguments() -> None:
    """A row's scores stay as they were given: other rows of the same tensor may still need them."""
    scores, value = torch.randn(2, 9), torch.full((2, 1), 0.5)
    given = scores.clone()
    for process in (divide_by_temperature, keep_top_p, keep_min_p, keep_typical):
        process(scores, value)
    keep_top_k(scores, torch.full((2, 1), 3))
    forbid(scores, scores > 0)
    assert torch.equal(scores, given)
