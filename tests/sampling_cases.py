"""Cases for the fused sampling kernel, whose oracle is the sampler's own processors and draw."""

import torch
from torch import Tensor

from peregrine_kernels.gpu.sampling import sampling_launch
from peregrine_server.sampling.draw import cumulative_probabilities, draw
from peregrine_server.sampling.processors import divide_by_temperature, keep_top_k, keep_top_p

GREEDY = -1.0
ROUNDING = 1e-6
"""Distance from a step of the cumulative distribution within which another summation order may draw the next token."""


def sampled(logits: Tensor, temperature: float, top_k: int, top_p: float, uniforms: list[float]) -> list[int]:
    """One token for each uniform number, from one row of logits [V]."""
    return sampled_with_logprobs(logits, temperature, top_k, top_p, uniforms)[0]


def sampled_with_logprobs(
    logits: Tensor, temperature: float, top_k: int, top_p: float, uniforms: list[float]
) -> tuple[list[int], list[float]]:
    """The same tokens and their log-probabilities; asserts that asking for these changes no token."""
    rows = logits.expand(len(uniforms), -1).contiguous()
    parameters = torch.tensor([[temperature, top_k, top_p, uniform] for uniform in uniforms], dtype=torch.float64).T
    parameters = parameters.contiguous().to(logits.device)
    alone, token_ids = torch.full((2, len(uniforms)), -1, device=logits.device)
    logprobs = torch.full((len(uniforms),), torch.nan, device=logits.device)
    sampling_launch(rows, parameters, alone)()
    sampling_launch(rows, parameters, token_ids, logprobs)()
    assert torch.equal(alone, token_ids)
    return token_ids.tolist(), logprobs.tolist()


def warped(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Scores [1, V] that the sampler draws from."""
    scores = logits[None]
    if temperature != 1.0:
        scores = divide_by_temperature(scores, torch.tensor([[temperature]]))
    if top_k < len(logits):
        scores = keep_top_k(scores, torch.tensor([[top_k]]))
    return scores if top_p == 1.0 else keep_top_p(scores, torch.tensor([[top_p]]))


def is_borderline(logits: Tensor, temperature: float, top_k: int, top_p: float, uniform: float) -> bool:
    """Whether rounding may decide which token is the last that top-p drops, or which is drawn."""
    scores = warped(logits, temperature, top_k, 1.0).double()
    dropped = scores.sort().values.softmax(-1).cumsum(-1)
    drawn = warped(logits, temperature, top_k, top_p).double().softmax(-1).cumsum(-1)
    distance = [(dropped - (1 - top_p)).abs().min()] if top_p < 1 else []
    return bool(min([*distance, (drawn - uniform).abs().min()]) < ROUNDING)


def assert_agrees(logits: Tensor, temperature: float, top_k: int, top_p: float, uniforms: list[float]) -> int:
    """Asserts that the kernel, on the device of logits [V], draws the sampler's tokens with their log-probabilities.

    Returns the number of tokens that rounding cannot have changed.
    """
    token_ids, logprobs = sampled_with_logprobs(logits, temperature, top_k, top_p, uniforms)
    logits = logits.cpu()
    scores = warped(logits, temperature, top_k, top_p)
    exact = scores[0].double().log_softmax(-1)
    num_sure = 0
    for uniform, token, logprob in zip(uniforms, token_ids, logprobs, strict=True):
        if not is_borderline(logits, temperature, top_k, top_p, uniform):
            assert token == int(draw(cumulative_probabilities(scores), torch.tensor([uniform], dtype=torch.float64)))
            assert abs(logprob - float(exact[token])) <= 1e-5 + 1e-6 * abs(logprob)
            num_sure += 1
    return num_sure
