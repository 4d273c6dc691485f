"""Draft lengths by acceptance rate and cost."""

import pytest

from peregrine_server.speculation.draft_lengths import choose_draft_lengths

FREE, COSTLY = (0.0, 0.0), (0.3, 0.05)


@pytest.mark.parametrize(
    ("rates", "limits", "cost", "draft_lengths"),
    [
        ([0.9], [8], FREE, [8]),
        ([0.99], [8], COSTLY, [8]),
        ([0.5], [8], COSTLY, [3]),
        ([0.2], [8], COSTLY, [0]),
        ([0.99], [0], FREE, [0]),
        ([0.6, 0.6], [1, 1], (0.5, 0.0), [1, 1]),
        ([0.6, 0.0], [1, 1], (0.5, 0.0), [0, 0]),
        ([0.9, 0.1], [4, 4], (0.0, 0.1), [4, 0]),
    ],
    ids=[
        "drafts are free",
        "likely drafts pay",
        "the fourth is too unlikely",
        "none pays",
        "no match was found",
        "two sequences share the fixed cost",
        "one alone does not pay it",
        "each sequence by its rate",
    ],
)
def test_draft_lengths(
    rates: list[float], limits: list[int], cost: tuple[float, float], draft_lengths: list[int]
) -> None:
    """They maximise the expected tokens per unit of time."""
    assert choose_draft_lengths(rates, limits, len(rates), cost) == draft_lengths


def test_no_other_lengths_are_better() -> None:
    """Enumerated: no other draft lengths of two sequences among three yield more tokens per unit of time."""
    rates, cost = [0.8, 0.55], (0.2, 0.08)

    def tokens_per_unit(counts: tuple[int, ...]) -> float:
        gained = sum(rate**k for rate, n in zip(rates, counts, strict=True) for k in range(1, n + 1))
        return (3 + gained) / (1 + cost[0] + cost[1] * sum(counts))

    every = [(a, b) for a in range(7) for b in range(7) if a + b > 0]
    best = max(every, key=tokens_per_unit)
    assert choose_draft_lengths(rates, [6, 6], 3, cost) == [*best]
    assert tokens_per_unit(best) > 3
