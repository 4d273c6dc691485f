"""The sampler against transformers' own processors, and against the softmax distribution."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_server.batch.batch import Batch
from peregrine_server.protocol import NewSequence, SamplingParams, Step, pack
from peregrine_server.sampling.draw import cumulative_probabilities, draw, uniforms
from peregrine_server.sampling.processors import is_green
from peregrine_server.sampling.registry import sampling_fields
from peregrine_server.sampling.sampler import Sampler
from peregrine_server.structured.masks import GrammarMasks

VOCAB = 97
KNOWN = [3, 5, 5, 8, 13, 21]
KNOWN_IDS: Any = torch.tensor([KNOWN])
PROMPT_LENGTH = 2
BIAS = ((3, 2.5), (50, -4.0), (96, 1.0))
ENDS = (7, 11)
NO_GRAMMARS = GrammarMasks(Path(), VOCAB, ())
SETTINGS = [
    SamplingParams(do_sample=True),
    SamplingParams(do_sample=True, temperature=0.6),
    SamplingParams(do_sample=True, top_k=5),
    SamplingParams(do_sample=True, top_k=500),
    SamplingParams(do_sample=True, top_p=0.8),
    SamplingParams(do_sample=True, min_p=0.1),
    SamplingParams(do_sample=True, typical_p=0.7),
    SamplingParams(repetition_penalty=1.4),
    SamplingParams(logit_bias=BIAS),
    SamplingParams(min_tokens=9, end_token_ids=ENDS),
    SamplingParams(min_tokens=4, end_token_ids=ENDS),
    SamplingParams(
        do_sample=True,
        logit_bias=BIAS,
        repetition_penalty=0.8,
        min_tokens=9,
        end_token_ids=ENDS,
        temperature=1.3,
        top_k=40,
        top_p=0.95,
        min_p=0.01,
        typical_p=0.95,
    ),
]


def oracle(params: SamplingParams) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if params.logit_bias:
        biases: Any = {(token_id,): bias for token_id, bias in params.logit_bias}
        processors.append(SequenceBiasLogitsProcessor(biases))
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.min_tokens:
        processors.append(MinNewTokensLengthLogitsProcessor(PROMPT_LENGTH, params.min_tokens, list(ENDS)))
    if params.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p != 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    if params.typical_p != 1.0:
        processors.append(TypicalLogitsWarper(params.typical_p))
    return processors


def make_sampler(params: list[SamplingParams], known: list[int] = KNOWN, prompt_length: int = PROMPT_LENGTH) -> Sampler:
    batch = Batch(len(params), 64, 16, torch.device("cpu"), sampling_fields())
    ids = pack(known)
    batch.apply(Step(0, new=[NewSequence(slot, ids, prompt_length, p) for slot, p in enumerate(params)]))
    return Sampler(batch, NO_GRAMMARS)


def logprobs(logits: torch.Tensor, params: list[SamplingParams], known: list[int] = KNOWN) -> torch.Tensor:
    """float32[S, V]: log-probabilities that the sampler draws from, read through top_n_tokens of the vocabulary."""
    asking = [replace(p, top_n_tokens=logits.shape[-1]) for p in params]
    sampled = make_sampler(asking, known)(logits.clone(), np.arange(len(params)))
    return torch.stack([torch.empty_like(values).scatter(0, ids, values) for _, ids, values in sampled.top])


def random_logits(rows: int, seed: int, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("params", SETTINGS)
def test_each_setting_agrees_with_transformers(params: SamplingParams) -> None:
    """The scores after every processor are transformers' own."""
    logits = random_logits(1, seed=1)
    want = oracle(params)(KNOWN_IDS, logits.clone())
    torch.testing.assert_close(logprobs(logits, [params]), want.log_softmax(-1))


def test_a_mixed_batch_agrees_with_transformers_row_by_row() -> None:
    """Other parameters in other rows change nothing."""
    logits = random_logits(len(SETTINGS), seed=2)
    want = torch.cat([oracle(p)(KNOWN_IDS, row[None].clone()) for p, row in zip(SETTINGS, logits, strict=True)])
    torch.testing.assert_close(logprobs(logits, SETTINGS), want.log_softmax(-1))


@pytest.mark.parametrize(("frequency", "presence"), [(1.5, 0.0), (0.0, 0.7), (-0.5, 1.1)])
def test_frequency_and_presence_penalties_are_those_of_openai(frequency: float, presence: float) -> None:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, c counting generated tokens; the prompt costs nothing."""
    logits = random_logits(3, seed=6)
    params = SamplingParams(frequency_penalty=frequency, presence_penalty=presence)
    counts = Counter(KNOWN[PROMPT_LENGTH:])
    want = [mu - counts[j] * frequency - (counts[j] > 0) * presence for j, mu in enumerate(logits[1].tolist())]
    got = logprobs(logits, [SamplingParams(), params, SamplingParams(repetition_penalty=2.0)])[1]
    torch.testing.assert_close(got, torch.tensor(want).log_softmax(-1))


def test_sequences_of_different_lengths_are_penalized_apart() -> None:
    """In one batch, each row is penalised for its own tokens, and for none of the padding."""
    batch = Batch(2, 64, 16, torch.device("cpu"), sampling_fields())
    params = SamplingParams(repetition_penalty=2.0, frequency_penalty=1.0, top_n_tokens=5)
    sequences = [[1, 2, 2, 2, 3], [4, 4]]
    batch.apply(Step(0, new=[NewSequence(i, pack(ids), 1, params) for i, ids in enumerate(sequences)]))
    sampled = Sampler(batch, NO_GRAMMARS)(torch.ones(2, 5), np.arange(2))
    want = torch.tensor([[1.0, 0.5, -2.5, -0.5, 1.0], [1.0, 1.0, 1.0, 1.0, -0.5]]).log_softmax(-1)
    for row, ids, values in sampled.top:
        torch.testing.assert_close(values, want[row][ids])


def test_the_watermark_favours_the_green_tokens() -> None:
    """delta = 2 is added to half of the vocabulary, another half after each token."""
    logits = random_logits(1, seed=7, vocab=4096)
    green = is_green(torch.tensor([[KNOWN[-1]], [KNOWN[-2]]]), 4096)
    torch.testing.assert_close(
        logprobs(logits, [SamplingParams(watermark=True)])[0], (logits[0] + 2.0 * green[0]).log_softmax(-1)
    )
    assert green.float().mean(-1).tolist() == pytest.approx([0.5, 0.5], abs=0.04)
    assert (green[0] == green[1]).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_watermarked_text_is_detected_by_its_green_tokens() -> None:
    """Most of 200 tokens sampled from a flat distribution are green, where half would be without a watermark."""
    known, count = [1], 200
    for _ in range(count):
        params = SamplingParams(do_sample=True, watermark=True, seed=5)
        batch = Batch(1, 256, 16, torch.device("cpu"), sampling_fields())
        batch.apply(Step(0, new=[NewSequence(0, pack(known), 1, params)]))
        known.append(int(Sampler(batch, NO_GRAMMARS)(torch.zeros(1, VOCAB), np.array([0])).token_ids))
    pairs = itertools.pairwise(known)
    green = sum(bool(is_green(torch.tensor([[before]]), VOCAB)[0, token]) for before, token in pairs)
    assert green > 150  # z = 7; e^2 / (1 + e^2) of them are green in the mean: 176


def test_ends_are_allowed_where_every_other_token_is_masked() -> None:
    """min_tokens yields to a bias that leaves no token but an end."""
    bias = tuple((token_id, float("-inf")) for token_id in range(VOCAB) if token_id != 7)
    params = SamplingParams(min_tokens=9, end_token_ids=ENDS, logit_bias=bias)
    sampled = make_sampler([params])(random_logits(1, seed=8), np.array([0]))
    assert sampled.token_ids.tolist() == [7]


def test_greedy_takes_the_likeliest_token_and_its_logprob() -> None:
    """Without sampling the token is the argmax, the log-probability that of the softmax."""
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(3))
    sampled = make_sampler([SamplingParams(logprobs=True)] * 3)(logits.clone(), np.arange(3))
    assert sampled.token_ids.tolist() == logits.argmax(-1).tolist()
    assert sampled.logprobs is not None
    torch.testing.assert_close(sampled.logprobs, logits.log_softmax(-1).max(-1).values)


@pytest.mark.parametrize("is_one_seed", [True, False])
def test_ten_thousand_draws_follow_the_softmax(is_one_seed: bool) -> None:
    """A chi-squared test of the draws at as many positions, or of as many seeds, passes at one per mille."""
    logits, params = torch.linspace(-2, 1, 20), SamplingParams(do_sample=True, seed=1234)
    if is_one_seed:
        uniform = uniforms(np.full(10_000, 1234, dtype=np.uint64), np.arange(10_000))
        ids = draw(cumulative_probabilities(logits.expand(10_000, -1)), torch.from_numpy(uniform))
    else:
        sampler = make_sampler([replace(params, seed=seed) for seed in range(10_000)])
        ids = sampler(logits.repeat(10_000, 1), np.arange(10_000)).token_ids
    counts = ids.bincount(minlength=20)
    expected = logits.softmax(-1) * 10_000
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert statistic < 43.82  # the 99.9th percentile of chi-squared with 19 degrees of freedom


@pytest.mark.parametrize("temperature", [1e-38, 1e-3, 1e38])
def test_an_extreme_temperature_draws_a_token(temperature: float) -> None:
    """Near zero the likeliest, for huge ones any of them; log-probabilities stay finite."""
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(5)) * 30
    params = SamplingParams(do_sample=True, temperature=temperature, top_p=0.99, seed=1, logprobs=True)
    sampled = make_sampler([params])(logits.clone(), np.array([0]))
    assert sampled.logprobs is not None
    assert sampled.logprobs.isfinite().all()
    assert temperature > 1 or sampled.token_ids[0] == logits.argmax()


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    """The same sequence in another slot of another batch draws the same token."""
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(4))
    mine = SamplingParams(do_sample=True, seed=99)
    alone = make_sampler([mine])(logits.clone(), np.array([0])).token_ids[0]
    others = [SamplingParams(do_sample=True, seed=i, temperature=2.0) for i in range(5)]
    crowd = make_sampler([*others, mine])(logits.repeat(6, 1), np.arange(6)).token_ids[5]
    assert alone == crowd


@pytest.mark.parametrize(
    ("neighbour", "is_one_operation"),
    [
        (SamplingParams(), True),
        (SamplingParams(do_sample=True, temperature=0.5, top_k=3, top_p=0.7, seed=5), True),
        (SamplingParams(do_sample=True, min_p=0.1), False),
        (SamplingParams(repetition_penalty=1.2), False),
        (SamplingParams(logprobs=True), True),
        (SamplingParams(top_n_tokens=2), False),
    ],
)
def test_the_fused_kernel_samples_what_it_knows(neighbour: SamplingParams, is_one_operation: bool) -> None:
    """It is given temperature, k, p and the random number of each row, unless any row uses another field."""
    given: list[torch.Tensor] = []

    def sample(logits: torch.Tensor, parameters: torch.Tensor, has_logprobs: bool) -> tuple[torch.Tensor, torch.Tensor]:
        given.append(parameters)
        assert has_logprobs == neighbour.logprobs
        return torch.zeros(len(logits), dtype=torch.int64), torch.zeros(len(logits))

    class Sampling(ReferenceBackend):
        sample = property(lambda _: sample)

    batch = Batch(2, 16, 4, torch.device("cpu"), sampling_fields())
    for slot, params in enumerate((SamplingParams(do_sample=True, temperature=0.5, seed=4), neighbour)):
        batch.parameters[slot] = params
    Sampler(batch, NO_GRAMMARS, Sampling())(torch.randn(2, VOCAB), np.arange(2))
    assert len(given) == is_one_operation
    for parameters in given:
        number = uniforms(np.array([4], dtype=np.uint64), np.array([0]))[0]
        assert parameters[:, 0].tolist() == [0.5, 2**31 - 1, 1.0, number]
        assert (parameters[3, 1] < 0) == (not neighbour.do_sample)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(logprobs=True), SamplingParams(do_sample=True)])
def test_one_score_that_is_no_number_is_noticed(params: SamplingParams) -> None:
    """Whichever token is chosen, and by whichever kernel: the rest of the row cannot be trusted either."""
    scores = torch.randn(2, VOCAB)
    scores[1, 3] = torch.nan
    sampled = make_sampler([params, params])(scores, np.arange(2))
    assert sampled.scores is not None
    assert sampled.scores.isfinite().tolist() == [True, False]
