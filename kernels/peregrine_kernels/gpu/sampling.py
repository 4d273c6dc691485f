"""Temperature, top-k, top-p, the draw of a token and its log-probability without sorting the vocabulary: one program a
row, no other memory.

x = (logits - max) / temperature                         logits themselves where the temperature is 1
top-k keeps x >= the k-th best; top-p drops the least likely while what is dropped has at most 1 - p of the probability;
the token is the first, in the order of ids, at which the kept probability exceeds `uniform` times all of it.

Both thresholds are the same search: the largest c for which the tokens below it weigh at most so much, a token weighing
1 for top-k and exp(x - max) for top-p. It is found by bisection between the least and the largest x, each pass moving
both ends to scores that occur, so that it ends, exactly, where one is left. After EVEN_STEPS passes it halves the
float's bits instead of its value, so that there are at most EVEN_STEPS + 32.

Weights are integers, in units of 2 ** -40: their sums are the same in any order, whatever the tiles, and a token's is
off by at most half a unit beside the likeliest token's 1. Sums in float32 or float64 choose another token only
where `uniform`, or 1 - p, is within rounding of a step of the distribution.
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.launch import Launch

BLOCK = 4096
EVEN_STEPS = 16
ONE = tl.constexpr(2.0**40)
"""A weight of 1 in units."""


@triton.jit
def key_of(x):
    """int32 in the order of float32 x."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def value_of(key):
    """The inverse of `key_of`."""
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def warped(logits, largest, temperature):
    """x as above; what rounds to -0 is 0, as it is where scores are compared."""
    x = tl.where(temperature == 1.0, logits, tl.div_rn(logits - largest, temperature))
    return tl.where(x == 0.0, 0.0, x)


@triton.jit
def keys_at(row, start, largest, temperature, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """int32[BLOCK] of the tokens from `start` on, and which of them there are."""
    at = start + tl.arange(0, BLOCK)
    is_token = at < SIZE
    logits = tl.load(row + at, mask=is_token, other=float("-inf"))
    return key_of(warped(logits, largest, temperature)), is_token


@triton.jit
def weights_of(keys, max_key, HAS_MASS: tl.constexpr):
    """int64: the probability beside the likeliest token's, or 1."""
    if HAS_MASS:
        return (tl.exp(value_of(keys) - value_of(max_key)) * ONE + 0.5).to(tl.int64)
    else:
        return (keys == keys).to(tl.int64)


@triton.jit
def boundary(
    row, largest, temperature, min_key, max_key, limit,
    HAS_MASS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, EVEN_STEPS: tl.constexpr,
):  # fmt: skip
    """The largest key that occurs of which the tokens from min_key up to it, itself left out, weigh at most `limit`;
    and what they weigh. min_key occurs."""
    low, high = min_key, max_key  # low fits; what is above high does not, or does not occur
    below = tl.full([], 0, tl.int64)
    step = tl.full([], 0, tl.int32)
    while low < high:
        halfway = (low >> 1) + (high >> 1) + (low & high & 1)
        even = key_of(value_of(low) * 0.5 + value_of(high) * 0.5)
        middle = tl.where(step < EVEN_STEPS, even, halfway)
        middle = tl.minimum(tl.maximum(middle, low), high - 1) + 1
        weight = tl.zeros([BLOCK], tl.int64)
        next_up = tl.full([BLOCK], 0x7FFFFFFF, tl.int32)
        next_down = tl.full([BLOCK], -0x80000000, tl.int32)
        for start in range(0, SIZE, BLOCK):
            keys, is_token = keys_at(row, start, largest, temperature, SIZE, BLOCK)
            is_below = is_token & (keys >= min_key) & (keys < middle)
            weight += tl.where(is_below, weights_of(keys, max_key, HAS_MASS), 0)
            next_up = tl.minimum(next_up, tl.where(is_token & (keys >= middle), keys, 0x7FFFFFFF))
            next_down = tl.maximum(next_down, tl.where(is_below, keys, -0x80000000))
        total = tl.sum(weight, 0)
        fits = total <= limit
        below = tl.where(fits, total, below)
        low, high = tl.where(fits, tl.min(next_up, 0), low), tl.where(fits, high, tl.max(next_down, 0))
        step += 1
    return low, below


@triton.jit
def first_past(
    row, largest, temperature, first_key, first_index, last_key, max_key, limit,
    HAS_MASS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The first token up to which those of keys first_key to last_key, and at first_key of indices from first_index on,
    weigh more than `limit`, itself counted."""
    found = tl.full([], 0, tl.int32)
    total = tl.full([], 0, tl.int64)
    lane = tl.arange(0, BLOCK)
    for start in range(0, SIZE, BLOCK):
        keys, is_token = keys_at(row, start, largest, temperature, SIZE, BLOCK)
        is_counted = is_token & (keys <= last_key)
        is_counted &= (keys > first_key) | ((keys == first_key) & (start + lane >= first_index))
        weight = tl.where(is_counted, weights_of(keys, max_key, HAS_MASS), 0)
        after = total + tl.sum(weight, 0)
        if (total <= limit) & (limit < after):
            is_past = total + tl.cumsum(weight, 0) > limit
            found = start + tl.min(tl.where(is_past, lane, BLOCK), 0)
        total = after
    return tl.minimum(found, SIZE - 1)


@triton.jit
def argmax_and_mass(
    row, largest, temperature, first_key, max_key, HAS_MASS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The first token of max_key, and the weight of all tokens of first_key or more."""
    weight = tl.zeros([BLOCK], tl.int64)
    found = tl.full([BLOCK], SIZE, tl.int32)
    for start in range(0, SIZE, BLOCK):
        keys, is_token = keys_at(row, start, largest, temperature, SIZE, BLOCK)
        weight += tl.where(is_token & (keys >= first_key), weights_of(keys, max_key, HAS_MASS), 0)
        found = tl.minimum(found, tl.where(is_token & (keys == max_key), start + tl.arange(0, BLOCK), SIZE))
    # Where logits are not numbers, none may be found.
    return tl.minimum(tl.min(found, 0), SIZE - 1), tl.sum(weight, 0)


@triton.jit
def sampling_kernel(
    # pointers
    logits,
    parameters,
    token_ids,
    logprobs,
    # strides
    stride_row,
    stride_parameter,
    # constants
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    EVEN_STEPS: tl.constexpr,
):
    """One program: one row."""
    index = tl.program_id(0).to(tl.int64)
    row = logits + index * stride_row
    temperature = tl.load(parameters + index).to(tl.float32)
    top_k = tl.load(parameters + index + stride_parameter).to(tl.int64)
    top_p = tl.load(parameters + index + 2 * stride_parameter).to(tl.float32)
    uniform = tl.load(parameters + index + 3 * stride_parameter)

    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    least = tl.full([BLOCK], float("inf"), tl.float32)
    for start in range(0, SIZE, BLOCK):
        at = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(row + at, mask=at < SIZE, other=float("-inf")))
        least = tl.minimum(least, tl.load(row + at, mask=at < SIZE, other=float("inf")))
    best = tl.max(largest, 0)
    max_key = key_of(warped(best, best, temperature))
    min_key = key_of(warped(tl.min(least, 0), best, temperature))
    if logprobs is None:  # noqa: SIM102 - a constant: decided when the kernel is compiled
        if uniform < 0.0:
            token, _count = argmax_and_mass(row, best, temperature, max_key, max_key, False, SIZE, BLOCK)
            tl.store(token_ids + index, token.to(tl.int64))
            return

    first_key = min_key
    if top_k < SIZE:
        first_key, _below = boundary(
            row, best, temperature, min_key, max_key, SIZE - top_k, False, SIZE, BLOCK, EVEN_STEPS
        )  # fmt: skip
    token, total = argmax_and_mass(row, best, temperature, first_key, max_key, True, SIZE, BLOCK)
    first_index = tl.full([], 0, tl.int32)
    if top_p < 1.0:
        limit = ((1.0 - top_p).to(tl.float64) * total.to(tl.float64)).to(tl.int64)
        first_key, below = boundary(
            row, best, temperature, first_key, max_key, limit, True, SIZE, BLOCK, EVEN_STEPS
        )  # fmt: skip
        # Of equal scores those of the lowest ids go first; the last of the likeliest stays whatever p is.
        weight = weights_of(first_key, max_key, True)
        num_dropped = tl.minimum((limit - below) // weight, (total - below) // weight - 1)
        if num_dropped > 0:
            first_index = first_past(
                row, best, temperature, first_key, 0, first_key, max_key, num_dropped, False, SIZE, BLOCK
            )  # fmt: skip
        total = total - below - num_dropped * weight
    if uniform >= 0.0:
        target = (uniform * total.to(tl.float64)).to(tl.int64)
        # A product that rounds up to all of it would be past every token.
        target = tl.minimum(target, total - 1)
        token = first_past(row, best, temperature, first_key, first_index, max_key, max_key, target, True, SIZE, BLOCK)
    tl.store(token_ids + index, token.to(tl.int64))
    if logprobs is not None:
        score = warped(tl.load(row + token), best, temperature) - value_of(max_key)
        tl.store(logprobs + index, score - tl.log((total.to(tl.float64) / ONE).to(tl.float32)))


def sampling_launch(logits: Tensor, parameters: Tensor, token_ids: Tensor, logprobs: Tensor | None = None) -> Launch:
    """logits float32[S, V] with a row stride, parameters float64[4, S], as `Sample` has them -> token_ids int64[S], and
    logprobs float32[S] of those among the tokens that are kept."""
    num_rows, size = logits.shape
    return Launch(
        sampling_kernel,
        (num_rows,),
        {
            "logits": logits,
            "parameters": parameters,
            "token_ids": token_ids,
            "logprobs": logprobs,
            "stride_row": logits.stride(0),
            "stride_parameter": parameters.stride(0),
        },
        {"SIZE": size, "BLOCK": min(BLOCK, max(128, triton.next_power_of_2(size))), "EVEN_STEPS": EVEN_STEPS},
        # 8 scores a thread.
        num_warps=16,
    )
