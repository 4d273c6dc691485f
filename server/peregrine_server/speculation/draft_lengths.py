"""How many of the guesses that a step could make are worth their time."""

from collections.abc import Sequence

MARGIN = 1.05
"""Times as many tokens in the same time are worth it: of chances that are estimated, those that look good are also
those that are estimated too high."""


def choose_draft_lengths(
    chances: Sequence[float], most: Sequence[int], num_decodes: int, cost: tuple[float, float]
) -> list[int]:
    """For each of N sequences so many guesses that the step yields the most tokens in its time.

    A guess of a sequence is right with its chance if those before it were: the k-th yields chance^k tokens more. A step
    of `num_decodes` with g guesses takes 1 + fixed + each * g, `cost` being (fixed, each). For any g the best guesses
    are the likeliest, and of one sequence the k-th is likelier than the one behind it: so they are tried in that order.
    """
    gains = sorted(
        (
            (chance**k, at)
            for at, (chance, count) in enumerate(zip(chances, most, strict=True))
            for k in range(1, count + 1)
        ),
        key=lambda gain: -gain[0],
    )
    fixed, each = cost
    tokens, best, num_best = float(num_decodes), MARGIN * num_decodes, 0
    for number, (gain, _) in enumerate(gains, 1):
        tokens += gain
        if tokens / (1.0 + fixed + each * number) > best:
            best, num_best = tokens / (1.0 + fixed + each * number), number
    counts = [0] * len(chances)
    for _, at in gains[:num_best]:
        counts[at] += 1
    return counts
