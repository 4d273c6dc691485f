"""Logits processors as functions of scores [R, V]. They return new scores and leave their arguments unchanged.

Those that transformers has compute what transformers does. Parameters such as `penalty`, `k` and `p` are [R, 1].
"""

import torch
from torch import Tensor

NEVER = float("-inf")
WATERMARK_GAMMA = 0.5
"""Fraction of the vocabulary that is green after each token; TGI's default."""
WATERMARK_DELTA = 2.0
"""Value added to a green token's logit; TGI's default."""
_BITS = 0xFFFFFFFF


def add_bias(scores: Tensor, rows: Tensor, token_ids: Tensor, biases: Tensor) -> Tensor:
    """Adds biases [N] to the scores at (rows [N], token_ids [N]) (OpenAI's logit_bias)."""
    return scores.index_put((rows, token_ids), biases, accumulate=True)


def add_watermark(scores: Tensor, previous: Tensor) -> Tensor:
    """Adds WATERMARK_DELTA to green tokens after `previous` int64[R, 1] (arXiv:2301.10226, context of one token)."""
    return scores + WATERMARK_DELTA * is_green(previous, scores.shape[-1])


def is_green(previous: Tensor, vocab_size: int) -> Tensor:
    """bool[R, V]: whether each token is on the green list that `previous` int64[R, 1] seeds.

    Token t is green after p if h(h(p + 1) + t) < gamma * 2^32, where h is MurmurHash3's 32-bit finalizer. Each entry
    depends on (p, t) alone, so a detector needs no generator, and the list is the same on every rank and device.
    """
    tokens = torch.arange(vocab_size, device=previous.device)
    return _finalize((_finalize(previous + 1) + tokens) & _BITS) < int(WATERMARK_GAMMA * 2**32)


def penalize_repetition(scores: Tensor, known: Tensor, penalty: Tensor) -> Tensor:
    """Penalises tokens that occur in known int64[R, L] (CTRL, arXiv:1909.05858)."""
    seen = scores.gather(-1, known)
    return scores.scatter(-1, known, torch.where(seen < 0, seen * penalty, seen / penalty))


def penalize_counts(scores: Tensor, known: Tensor, is_generated: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """Returns score - frequency * count - presence * [count > 0] (OpenAI's definition).

    A count is how often a token occurs in known int64[R, L] where is_generated float32[R, L] is 1.
    """
    counts = torch.zeros_like(scores).scatter_add_(-1, known, is_generated)
    return scores - frequency * counts - presence * (counts > 0)


def forbid(scores: Tensor, is_forbidden: Tensor) -> Tensor:
    """Masks tokens where is_forbidden bool[R, V], except in rows that would be left without any token."""
    rest = scores.masked_fill(is_forbidden, NEVER)
    return torch.where(rest.amax(-1, keepdim=True) == NEVER, scores, rest)


def divide_by_temperature(scores: Tensor, temperature: Tensor) -> Tensor:
    """Divides scores by temperature, after the best score is shifted to 0 so that no temperature overflows it."""
    return (scores - scores.amax(-1, keepdim=True)) / temperature


def keep_top_k(scores: Tensor, k: Tensor) -> Tensor:
    """Keeps the k best of each row, and ties with the last of them.

    Reads the largest k from the device: on CUDA the host waits for the work queued so far.
    """
    count = int(min(k.max().item(), scores.shape[-1]))
    best = scores.topk(count).values
    threshold = best.gather(-1, (k.long() - 1).clamp(max=count - 1))
    return scores.masked_fill(scores < threshold, NEVER)


def keep_top_p(scores: Tensor, p: Tensor) -> Tensor:
    """Keeps the fewest tokens whose total probability reaches p (nucleus, arXiv:1904.09751); among equals, the highest
    ids."""
    ordered, order = scores.sort(descending=False, stable=True)
    is_dropped = ordered.softmax(-1).cumsum(-1) <= 1 - p
    is_dropped[:, -1] = False
    return scores.masked_fill(is_dropped.scatter(-1, order, is_dropped), NEVER)


def keep_min_p(scores: Tensor, p: Tensor) -> Tensor:
    """Keeps the tokens that are at least p times as likely as the likeliest (arXiv:2407.01082)."""
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), NEVER)


def keep_typical(scores: Tensor, mass: Tensor) -> Tensor:
    """Keeps the tokens whose information is nearest the entropy, up to a total probability of `mass`, and ties with the
    last of them (locally typical sampling, arXiv:2202.00666)."""
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    surprise = (-logprobs - entropy).abs()
    ordered, order = surprise.sort(descending=False, stable=True)
    cumulative = scores.gather(-1, order).softmax(-1).cumsum(-1)
    last = (cumulative < mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    return scores.masked_fill(surprise > ordered.gather(-1, last), NEVER)


def _finalize(x: Tensor) -> Tensor:
    # int64 arithmetic wraps, so the low 32 bits of a product are exact and the mask keeps values non-negative.
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _BITS
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _BITS
    return x ^ (x >> 16)
