"""The sampling kernel, under Triton's interpreter, against the sampler's own processors and draw."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peregrine_kernels.gpu.sampling import sampling_launch
from sampling_cases import GREEDY, assert_agrees, sampled, sampled_with_logprobs

sizes = st.sampled_from([1, 2, 31, 97, 128, 1000, 4097])
temperatures = st.sampled_from([1.0, 0.05, 0.7, 1.3, 20.0])
top_ks = st.sampled_from([1, 2, 5, 40, 100_000])
top_ps = st.sampled_from([1.0, 1e-9, 0.01, 0.3, 0.9, 0.999])
uniform_lists = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=2)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(sizes, temperatures, top_ks, top_ps, uniform_lists, st.sampled_from([0.01, 2.0, 30.0]), st.integers(0, 999))
def test_any_row(
    size: int, temperature: float, top_k: int, top_p: float, uniforms: list[float], spread: float, seed: int
) -> None:
    """Flat and peaked rows of any size give the tokens that the sampler gives."""
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread
    assert_agrees(logits, temperature, top_k, top_p, uniforms)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), temperatures, top_ks, top_ps, uniform_lists, st.integers(1, 5), st.integers(0, 999))
def test_rows_of_ties(
    size: int, temperature: float, top_k: int, top_p: float, uniforms: list[float], num_values: int, seed: int
) -> None:
    """Among few different scores, all that tie with the k-th stay, and top-p drops those of the lowest ids first."""
    logits = torch.randint(num_values, (size,), generator=torch.Generator().manual_seed(seed)).float()
    assert_agrees(logits, temperature, top_k, top_p, uniforms)


@pytest.mark.slow
def test_rounding_decides_seldom() -> None:
    """At Falcon's vocabulary, with both thresholds, every one of 8 tokens is sure, and is the sampler's."""
    torch.manual_seed(0)
    logits, uniforms = torch.randn(65024) * 3, torch.rand(4, dtype=torch.float64).tolist()
    assert assert_agrees(logits, 0.8, 50, 0.95, uniforms) == 4
    assert assert_agrees(logits, 1.0, 100_000, 0.9, uniforms) == 4


@pytest.mark.slow
def test_equal_logits() -> None:
    """Half the probability of eight equal tokens is that of the last four, and k keeps them all."""
    quarters = [0.0, 0.2499, 0.25, 0.5, 0.75, 0.9999]
    assert sampled(torch.zeros(8), 1.0, 100, 0.5, quarters) == [4, 4, 5, 6, 7, 7]
    assert sampled(torch.full((8,), -3.0), 0.3, 1, 1.0, [0.0, 0.51, 0.999]) == [0, 4, 7]
    assert sampled(torch.zeros(5000), 1.0, 100_000, 1e-9, [0.0, 0.5]) == [4999, 4999]


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_greedy_rows_get_the_first_of_the_best(temperature: float) -> None:
    """As argmax does, zeros of both signs being equal, whatever k and p are."""
    logits = torch.full((5000,), -1.0)
    logits[[4500, 4800]] = torch.tensor([-0.0, 0.0])
    assert sampled(logits, temperature, 3, 0.1, [GREEDY]) == [4500]


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("size", [1, 97, 4097])
def test_greedy_rows_have_log_probabilities(size: int, temperature: float) -> None:
    """Among all tokens, at their temperature."""
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) * 3
    (token,), (logprob,) = sampled_with_logprobs(logits, temperature, 100_000, 1.0, [GREEDY])
    expected = (logits / temperature).log_softmax(-1).max(-1)
    assert token == int(expected.indices)
    assert logprob == pytest.approx(float(expected.values), abs=1e-5)


@pytest.mark.slow
def test_rows_of_a_batch_have_their_own_parameters() -> None:
    """Rows may be strided; each is drawn by its own column."""
    torch.manual_seed(0)
    wide = torch.randn(4, 1100) * 4
    rows = [(1.0, 100_000, 1.0, 0.3), (0.5, 3, 1.0, 0.9), (1.0, 100_000, 0.4, 0.7), (1.0, 100_000, 1.0, GREEDY)]
    token_ids = torch.empty(4, dtype=torch.int64)
    parameters = torch.tensor(rows, dtype=torch.float64).T.contiguous()
    sampling_launch(wide[:, :1000], parameters, token_ids)()
    alone = [sampled(wide[row, :1000], *each[:3], [each[3]])[0] for row, each in enumerate(rows)]
    assert token_ids.tolist() == alone
    assert alone[3] == int(wide[3, :1000].argmax())


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-126, -60, 0, 60, 120])
def test_scores_of_any_magnitude(exponent: int) -> None:
    """The search ends, and is exact, for scores a thousand octaves apart as for neighbours among floats."""
    logits = torch.cat((torch.linspace(1, 2, 50), -torch.linspace(1, 2, 50), torch.zeros(3))) * 2.0**exponent
    logits[7] = torch.nextafter(logits[8], logits[9])
    for top_k in (1, 2, 50, 53, 100):
        assert_agrees(logits, 1.0, top_k, 1.0, [0.1, 0.6])
