"""Logits processors: functions of the scores [R, V] of the R rows that use them. None changes its arguments.

They are transformers' own in effect where transformers has them. Of R rows, `arguments` are [R, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor

NEVER = float("-inf")
WATERMARK_GAMMA = 0.5
"""Share of the vocabulary that is green after each token; TGI's default."""
WATERMARK_DELTA = 2.0
"""What is added to a green token's logit; TGI's default."""
_BITS = 0xFFFFFFFF


def add_bias(scores: Tensor, rows: Tensor, token_ids: Tensor, biases: Tensor) -> Tensor:
    """Adds biases [N] to the scores at (rows [N], token_ids [N]) (OpenAI's logit_bias)."""
    return scores.index_put((rows, token_ids), biases, accumulate=True)


def add_watermark(scores: Tensor, previous: Tensor) -> Tensor:
    """Adds delta to the green tokens after `previous` int64[R, 1] (arXiv:2301.10226, context of one token)."""
    return scores + WATERMARK_DELTA * is_green(previous, scores.shape[-1])


def is_green(previous: Tensor, vocab_size: int) -> Tensor:
    """bool[R, V]: whether each token is on the green list that `previous` int64[R, 1] seeds.

    Token t is green after p if h(h(p + 1) + t) < gamma * 2^32, where h is MurmurHash3's 32-bit finalizer. Each entry
    depends on (p, t) alone, so a detector needs no generator, and the list is the same on every rank and device.
    """
    tokens = torch.arange(vocab_size, device=previous.device)
    return _finalize((_finalize(previous + 1) + tokens) & _BITS) < int(WATERMARK_GAMMA * 2**32)


def penalize_repetition(scores: Tensor, known: Tensor, penalty: Tensor) -> Tensor:
    """Tokens that occur in known int64[R, L] become less likely (CTRL, arXiv:1909.05858)."""
    seen = scores.gather(-1, known)
    return scores.scatter(-1, known, torch.where(seen < 0, seen * penalty, seen / penalty))


def penalize_counts(scores: Tensor, known: Tensor, is_generated: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """score - frequency * count - presence * [count > 0] (OpenAI's definition).

    A count is how often a token occurs in known int64[R, L] where is_generated float32[R, L] is 1.
    """
    counts = torch.zeros_like(scores).scatter_add_(-1, known, is_generated)
    return scores - frequency * counts - presence * (counts > 0)


def forbid(scores: Tensor, is_forbidden: Tensor) -> Tensor:
    """Tokens where is_forbidden bool[R, V] cannot be sampled, unless that would leave a row without any token."""
    rest = scores.masked_fill(is_forbidden, NEVER)
    return torch.where(rest.amax(-1, keepdim=True) == NEVER, scores, rest)


def divide_by_temperature(scores: Tensor, temperature: Tensor) -> Tensor:
    """The best score becomes 0, so that no temperature makes an infinity of it."""
    return (scores - scores.amax(-1, keepdim=True)) / temperature


def keep_top_k(scores: Tensor, k: Tensor) -> Tensor:
    """The k best of each row; ties with the last of them stay."""
    count = int(min(k.max().item(), scores.shape[-1]))
    best = scores.topk(count).values
    threshold = best.gather(-1, (k.long() - 1).clamp(max=count - 1))
    return scores.masked_fill(scores < threshold, NEVER)


def keep_top_p(scores: Tensor, p: Tensor) -> Tensor:
    """The fewest tokens whose probability reaches p (nucleus, arXiv:1904.09751); of equal ones the highest ids stay."""
    ordered, order = scores.sort(descending=False, stable=True)
    is_dropped = ordered.softmax(-1).cumsum(-1) <= 1 - p
    is_dropped[:, -1] = False
    return scores.masked_fill(is_dropped.scatter(-1, order, is_dropped), NEVER)


def keep_min_p(scores: Tensor, p: Tensor) -> Tensor:
    """The tokens at least p times as likely as the likeliest (arXiv:2407.01082)."""
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), NEVER)


def keep_typical(scores: Tensor, mass: Tensor) -> Tensor:
    """The tokens nearest the expected information that hold `mass` of the probability (arXiv:2202.00666); ties with the
    last of them stay."""
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    surprise = (-logprobs - entropy).abs()
    ordered, order = surprise.sort(descending=False, stable=True)
    cumulative = scores.gather(-1, order).softmax(-1).cumsum(-1)
    last = (cumulative < mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    return scores.masked_fill(surprise > ordered.gather(-1, last), NEVER)


WARPERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "temperature": divide_by_temperature,
    "top_k": keep_top_k,
    "top_p": keep_top_p,
    "min_p": keep_min_p,
    "typical_p": keep_typical,
}
"""By parameter, in the order in which they apply: TGI's, with min_p where transformers has it."""


def _finalize(x: Tensor) -> Tensor:
    # int64 arithmetic wraps, so the low 32 bits of a product are right and the mask keeps values non-negative.
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _BITS
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _BITS
    return x ^ (x >> 16)
