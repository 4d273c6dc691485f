"""Draft lengths: how many of the draft tokens that a step could verify are expected to pay for their time."""

from collections.abc import Sequence

MARGIN = 1.05
"""Ratio by which a step with draft tokens must be expected to beat one without, in tokens per unit of time. Acceptance
rates are estimates, and the rates that look good are those that are estimated too high."""


def choose_draft_lengths(
    acceptance_rates: Sequence[float], limits: Sequence[int], num_decodes: int, cost: tuple[float, float]
) -> list[int]:
    """Draft lengths of N sequences, up to `limits`, that maximise the expected tokens per unit of time of the step.

    A sequence's k-th draft token is accepted with probability rate^k, which is its expected gain in tokens. A step of
    `num_decodes` sequences with g draft tokens takes 1 + fixed + each * g, `cost` being (fixed, each). For any g the
    best draft tokens are the g of the highest gain; since gains fall with k, these are prefixes of the drafts.
    """
    gains = sorted(
        (
            (rate**k, at)
            for at, (rate, limit) in enumerate(zip(acceptance_rates, limits, strict=True))
            for k in range(1, limit + 1)
        ),
        key=lambda gain: -gain[0],
    )
    fixed, each = cost
    tokens, best, num_best = float(num_decodes), MARGIN * num_decodes, 0
    for number, (gain, _) in enumerate(gains, 1):
        tokens += gain
        if tokens / (1.0 + fixed + each * number) > best:
            best, num_best = tokens / (1.0 + fixed + each * number), number
    draft_lengths = [0] * len(acceptance_rates)
    for _, at in gains[:num_best]:
        draft_lengths[at] += 1
    return draft_lengths
