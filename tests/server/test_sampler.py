"""The sampler against transformers' own processors, and against the distribution it promises."""

import itertools

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from peregrine_server.batch import Batch
from peregrine_server.protocol import NewSequence, SamplingParams, Step, pack
from peregrine_server.sampler import Sampler, draw, penalize_repetition, uniforms, warp

VOCAB = 97
HISTORY = torch.tensor([3, 5, 5, 8, 13, 21])
SETTINGS = [
    SamplingParams(do_sample=True),
    SamplingParams(do_sample=True, temperature=0.6),
    SamplingParams(do_sample=True, top_k=5),
    SamplingParams(do_sample=True, top_k=500),
    SamplingParams(do_sample=True, top_p=0.8),
    SamplingParams(do_sample=True, typical_p=0.7),
    SamplingParams(repetition_penalty=1.4),
    SamplingParams(do_sample=True, repetition_penalty=0.8, temperature=1.3, top_k=40, top_p=0.9, typical_p=0.95),
]


def oracle(params: SamplingParams) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p != 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.typical_p != 1.0:
        processors.append(TypicalLogitsWarper(params.typical_p))
    return processors


def ours(logits: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    scores = logits.clone()
    for row, p in enumerate(params):
        if p.repetition_penalty != 1.0:
            penalize_repetition(scores[row], HISTORY, p.repetition_penalty)
    return warp(scores, params)


def make_sampler(params: list[SamplingParams], history: torch.Tensor = HISTORY, prompt_length: int = 2) -> Sampler:
    batch = Batch(len(params), 64, 16, torch.device("cpu"))
    ids = pack(history.tolist())
    batch.apply(Step(0, new=[NewSequence(slot, ids, prompt_length, p) for slot, p in enumerate(params)]))
    return Sampler(batch)


@pytest.mark.parametrize("params", SETTINGS)
def test_each_setting_agrees_with_transformers(params: SamplingParams) -> None:
    """The scores after every processor are transformers' own."""
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(1)) * 3
    want = oracle(params)(HISTORY[None], logits.clone())
    torch.testing.assert_close(ours(logits, [params]).log_softmax(-1), want.log_softmax(-1))


def test_a_mixed_batch_agrees_with_transformers_row_by_row() -> None:
    """Neighbours with other parameters change nothing."""
    logits = torch.randn(len(SETTINGS), VOCAB, generator=torch.Generator().manual_seed(2)) * 3
    want = torch.cat([oracle(p)(HISTORY[None], row[None].clone()) for p, row in zip(SETTINGS, logits, strict=True)])
    torch.testing.assert_close(ours(logits, SETTINGS).log_softmax(-1), want.log_softmax(-1))


def test_frequency_penalty_counts_generated_tokens() -> None:
    """Each time that a token was generated costs it the penalty; the prompt costs nothing."""
    sampler = make_sampler([SamplingParams(frequency_penalty=1.5, top_n_tokens=5)], torch.tensor([1, 1, 2, 2, 3]))
    sampled = sampler(torch.zeros(1, 5), np.array([0]))
    (_, ids, logprobs) = sampled.top[0]
    want = torch.tensor([0.0, 0.0, -3.0, -1.5, 0.0]).log_softmax(-1)
    torch.testing.assert_close(logprobs, want[ids])


def test_greedy_takes_the_likeliest_token_and_its_logprob() -> None:
    """Without sampling the token is the argmax, the log-probability that of the softmax."""
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(3))
    sampled = make_sampler([SamplingParams(logprobs=True)] * 3)(logits.clone(), np.arange(3))
    assert sampled.token_ids.tolist() == logits.argmax(-1).tolist()
    assert sampled.logprobs is not None
    torch.testing.assert_close(sampled.logprobs, logits.log_softmax(-1).max(-1).values)


def test_ten_thousand_draws_follow_the_softmax() -> None:
    """A chi-squared test of the draws against the probabilities passes at one per mille."""
    logits = torch.linspace(-2, 1, 20)
    uniform = uniforms(np.full(10_000, 1234, dtype=np.uint64), np.arange(10_000))
    counts = draw(logits.expand(10_000, -1), torch.from_numpy(uniform)).bincount(minlength=20)
    expected = logits.softmax(-1) * 10_000
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert statistic < 43.82  # the 99.9th percentile of chi-squared with 19 degrees of freedom


def test_neighbouring_seeds_and_positions_are_independent() -> None:
    """Seeds 0..99 at positions 0..99 give 10,000 different numbers, spread evenly over [0, 1)."""
    pairs = np.array(list(itertools.product(range(100), range(100))))
    values = uniforms(pairs[:, 0].astype(np.uint64), pairs[:, 1])
    assert len(np.unique(values)) == 10_000
    assert (np.bincount((values * 10).astype(int), minlength=10) > 850).all()
    assert ((values >= 0) & (values < 1)).all()


def test_a_token_of_no_probability_is_never_drawn() -> None:
    """At either end of the unit interval the draw stays among the tokens left by the warpers."""
    scores = torch.full((3, 8), float("-inf"))
    scores[:, 3:5] = 0.0
    ids = draw(scores, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64))
    assert set(ids.tolist()) == {3, 4}


@pytest.mark.parametrize("temperature", [1e-38, 1e-3, 1e38])
def test_an_extreme_temperature_draws_a_token(temperature: float) -> None:
    """Near zero it is the likeliest, far above any of them; never a NaN."""
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(5)) * 30
    params = SamplingParams(do_sample=True, temperature=temperature, top_p=0.99, seed=1, logprobs=True)
    sampled = make_sampler([params])(logits.clone(), np.array([0]))
    assert sampled.logprobs is not None
    assert sampled.logprobs.isfinite().all()
    assert temperature > 1 or sampled.token_ids[0] == logits.argmax()


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    """The same sequence in another slot, among other neighbours, draws the same token."""
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(4))
    mine = SamplingParams(do_sample=True, seed=99)
    alone = make_sampler([mine])(logits.clone(), np.array([0])).token_ids[0]
    others = [SamplingParams(do_sample=True, seed=i, temperature=2.0) for i in range(5)]
    crowd = make_sampler([*others, mine])(logits.repeat(6, 1), np.arange(6)).token_ids[5]
    assert alone == crowd
