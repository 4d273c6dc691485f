"""From logits to tokens: processors in TGI's order, vectorised over a mixed batch; what is off costs nothing.

repetition penalty -> frequency penalty -> temperature -> top_k -> top_p -> typical_p -> log_softmax -> draw.
The warpers are transformers' own in effect; the frequency penalty is OpenAI's, over the generated tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_server.batch import Batch
from peregrine_server.protocol import SamplingParams

NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Sampled:
    """S tokens, and what was asked about them."""

    token_ids: Tensor
    """int64[S]."""
    logprobs: Tensor | None
    """float32[S], or None if no sequence asked."""
    top: list[tuple[int, Tensor, Tensor]]
    """(row, ids, log-probabilities) of the rows that asked for their likeliest tokens."""


class Sampler:
    """Reads parameters and token history from the batch; keeps no state of its own."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __call__(self, logits: Tensor, slots: NDArray[np.int64]) -> Sampled:
        """logits float32[S, V] of the sequences in `slots`; may be overwritten."""
        params = [self._batch.sampling[slot] for slot in slots.tolist()]
        scores = self._penalize(logits, slots, params)
        scores = warp(scores, params)
        token_ids = scores.argmax(-1)
        if drawn := [row for row, p in enumerate(params) if p.do_sample]:
            rows = torch.tensor(drawn, device=logits.device)
            seeds = np.array([params[row].seed for row in drawn], dtype=np.uint64)
            uniform = uniforms(seeds, self._batch.lengths[slots[drawn]])
            token_ids[rows] = draw(scores[rows], torch.from_numpy(uniform).to(logits.device))
        return self._describe(scores, token_ids, params)

    def _penalize(self, scores: Tensor, slots: NDArray[np.int64], params: list[SamplingParams]) -> Tensor:
        for row, p in enumerate(params):
            slot = slots[row]
            known = self._batch.token_ids[slot, : int(self._batch.lengths[slot])]
            if p.repetition_penalty != 1.0:
                penalize_repetition(scores[row], known, p.repetition_penalty)
            if p.frequency_penalty != 0.0:
                penalize_frequency(scores[row], known[self._batch.prompt_lengths[slot] :], p.frequency_penalty)
        return scores

    def _describe(self, scores: Tensor, token_ids: Tensor, params: list[SamplingParams]) -> Sampled:
        if not any(p.logprobs or p.top_n_tokens for p in params):
            return Sampled(token_ids, None, [])
        logprobs = scores.log_softmax(-1)
        top = []
        for row, p in enumerate(params):
            if p.top_n_tokens:
                values, ids = logprobs[row].topk(p.top_n_tokens)
                top.append((row, ids, values))
        return Sampled(token_ids, logprobs.gather(-1, token_ids[:, None])[:, 0], top)


def penalize_repetition(scores: Tensor, known: Tensor, penalty: float) -> None:
    """In place on scores [V]: tokens that occur in `known` become less likely (CTRL, arXiv:1909.05858)."""
    ids = torch.unique(known)
    seen = scores[ids]
    scores[ids] = torch.where(seen < 0, seen * penalty, seen / penalty)


def penalize_frequency(scores: Tensor, generated: Tensor, penalty: float) -> None:
    """In place on scores [V]: minus `penalty` for each time that a token was generated (OpenAI's definition)."""
    scores.index_add_(0, generated, torch.full(generated.shape, -penalty, device=scores.device, dtype=scores.dtype))


def warp(scores: Tensor, params: list[SamplingParams]) -> Tensor:
    """Temperature, top_k, top_p, typical_p on scores [S, V], each on the rows that use it."""
    scores = _on_rows(scores, [p.temperature for p in params], 1.0, divide_by_temperature)
    scores = _on_rows(scores, [p.top_k for p in params], 0, keep_top_k)
    scores = _on_rows(scores, [p.top_p for p in params], 1.0, keep_top_p)
    return _on_rows(scores, [p.typical_p for p in params], 1.0, keep_typical)


def divide_by_temperature(scores: Tensor, temperature: Tensor) -> Tensor:
    """scores [R, V], temperature [R, 1]. The best score becomes 0, so that no temperature makes an infinity of it."""
    return (scores - scores.amax(-1, keepdim=True)) / temperature


def keep_top_k(scores: Tensor, k: Tensor) -> Tensor:
    """scores [R, V], k [R, 1]: the k best of each row; ties with the last of them stay."""
    count = int(min(k.max().item(), scores.shape[-1]))
    best = scores.topk(count).values
    threshold = best.gather(-1, (k.long() - 1).clamp(max=count - 1))
    return scores.masked_fill(scores < threshold, NEVER)


def keep_top_p(scores: Tensor, p: Tensor) -> Tensor:
    """scores [R, V], p [R, 1]: the fewest tokens whose probability reaches p (nucleus, arXiv:1904.09751)."""
    ordered, order = scores.sort(descending=False)
    is_dropped = ordered.softmax(-1).cumsum(-1) <= 1 - p
    is_dropped[:, -1] = False
    return scores.masked_fill(is_dropped.scatter(-1, order, is_dropped), NEVER)


def keep_typical(scores: Tensor, mass: Tensor) -> Tensor:
    """scores [R, V], mass [R, 1]: the tokens nearest the expected information (arXiv:2202.00666)."""
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    surprise = (-logprobs - entropy).abs()
    ordered, order = surprise.sort(descending=False)
    cumulative = scores.gather(-1, order).softmax(-1).cumsum(-1)
    last = (cumulative < mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    return scores.masked_fill(surprise > ordered.gather(-1, last), NEVER)


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) per (seed, position), by SplitMix64: a function of its arguments and of nothing else."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        # Seeds are mixed before positions are added, or seed s at position p + 1 would repeat seed s + golden at p.
        state = _mix(seeds + golden) + positions.astype(np.uint64) * golden
        bits = _mix(state)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(scores: Tensor, uniform: Tensor) -> Tensor:
    """int64[R]: a token of each row of scores [R, V], by inverting the distribution function at uniform float64[R]."""
    cumulative = scores.softmax(-1).double().cumsum(-1)
    targets = uniform * cumulative[:, -1]
    ids = torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
    return ids.clamp(max=scores.shape[-1] - 1)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _on_rows(
    scores: Tensor, values: list[float] | list[int], off: float, warper: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    used = [row for row, value in enumerate(values) if value != off]
    if not used:
        return scores
    arguments = torch.tensor([values[row] for row in used], device=scores.device)[:, None]
    if len(used) == len(values):
        return warper(scores, arguments)
    rows = torch.tensor(used, device=scores.device)
    return scores.index_copy(0, rows, warper(scores[rows], arguments))
