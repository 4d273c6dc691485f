"""Sequences that fail alone: logits that are no numbers, and processors that raise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_server.batch.batch import Batch
from peregrine_server.execution.pending_step import NOT_FINITE, PendingStep
from peregrine_server.protocol import NewSequence, SamplingParams, Step, StepResult, pack
from peregrine_server.sampling.host_copy import DeviceToHostCopier
from peregrine_server.sampling.registry import PROCESSORS, sampling_fields
from peregrine_server.sampling.sampler import Sampler
from peregrine_server.structured.masks import GrammarMasks

VOCAB = 97
GREEDY, DRAWN = SamplingParams(), SamplingParams(do_sample=True, seed=7)
BIASED = SamplingParams(logit_bias=((5, 1.0),), top_n_tokens=2)
WARPED = SamplingParams(do_sample=True, temperature=0.7, top_p=0.9)


def sample(logits: torch.Tensor, parameters: list[SamplingParams]) -> StepResult:
    """The result of a step with a row for each sequence, the slot of each its index."""
    batch = Batch(len(parameters), 16, 8, torch.device("cpu"), sampling_fields(PROCESSORS))
    news = [NewSequence(slot, pack([1, 2, 3]), 3, each) for slot, each in enumerate(parameters)]
    batch.apply(Step(0, new=news))
    sampler = Sampler(batch, GrammarMasks(Path(), VOCAB, ()), ReferenceBackend())
    slots = np.arange(len(parameters))
    copy = DeviceToHostCopier(torch.device("cpu")).start(sampler(logits, slots))
    return PendingStep(0, slots, copy, []).result()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("parameters", [GREEDY, DRAWN, BIASED, WARPED], ids=["greedy", "drawn", "biased", "warped"])
@pytest.mark.parametrize("is_whole_row", [True, False])
def test_logits_that_are_no_numbers_fail_their_sequence(
    bad: float, parameters: SamplingParams, is_whole_row: bool
) -> None:
    """Its error says so, its token is one of the vocabulary, and the sequences beside it have the tokens they had."""
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    before = sample(logits.clone(), [parameters] * 3)
    assert not before.failed
    logits[1, slice(None) if is_whole_row else slice(40, 41)] = bad
    after = sample(logits, [parameters] * 3)
    assert [(failed.slot, failed.message) for failed in after.failed] == [(1, NOT_FINITE)]
    was, now = (np.frombuffer(result.token_ids, dtype=np.int32) for result in (before, after))
    assert [now[0], now[2]] == [was[0], was[2]]
    assert 0 <= now[1] < VOCAB


def test_a_processor_that_raises_fails_its_sequence(caplog: pytest.LogCaptureFixture) -> None:
    """A token that is not in the vocabulary fails the request that names it; its client reads no exception's text."""
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    others = SamplingParams(logit_bias=((5, 30.0),))
    parameters = [others, SamplingParams(logit_bias=((VOCAB + 4000, 1.0),)), others]
    result = sample(logits, parameters)
    assert [(failed.slot, failed.message) for failed in result.failed] == [(1, "`logit_bias` cannot be applied")]
    tokens = np.frombuffer(result.token_ids, dtype=np.int32)
    assert [tokens[0], tokens[2]] == [5, 5]
    assert result.failed[0].detail.startswith("IndexError: ")
    assert "a request fails" in caplog.text


def test_ends_beyond_the_vocabulary_fail_their_sequence() -> None:
    """The same holds for `min_tokens` with an end of text that the model does not have."""
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(0))
    result = sample(logits, [GREEDY, SamplingParams(min_tokens=2, end_token_ids=(0, 4096))])
    assert [failed.slot for failed in result.failed] == [1]
