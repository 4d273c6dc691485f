"""How many guesses are worth their time."""

import pytest

from peregrine_server.speculation.draft_lengths import choose_draft_lengths

FREE, DEAR = (0.0, 0.0), (0.3, 0.05)


@pytest.mark.parametrize(
    ("chances", "most", "cost", "counts"),
    [
        ([0.9], [8], FREE, [8]),
        ([0.99], [8], DEAR, [8]),
        ([0.5], [8], DEAR, [3]),
        ([0.2], [8], DEAR, [0]),
        ([0.99], [0], FREE, [0]),
        ([0.6, 0.6], [1, 1], (0.5, 0.0), [1, 1]),
        ([0.6, 0.0], [1, 1], (0.5, 0.0), [0, 0]),
        ([0.9, 0.1], [4, 4], (0.0, 0.1), [4, 0]),
    ],
    ids=[
        "nothing is lost",
        "likely ones pay",
        "the fourth is too unlikely",
        "none pays",
        "none was found",
        "two together pay what one alone does not",
        "one alone does not",
        "each sequence by its chance",
    ],
)
def test_counts(chances: list[float], most: list[int], cost: tuple[float, float], counts: list[int]) -> None:
    """Those that make the step yield the most tokens in its time."""
    assert choose_draft_lengths(chances, most, len(chances), cost) == counts


def test_it_is_the_best_of_all() -> None:
    """No other number of guesses of two sequences among three yields more in its time."""
    chances, cost = [0.8, 0.55], (0.2, 0.08)

    def rate(counts: tuple[int, ...]) -> float:
        gained = sum(chance**k for chance, n in zip(chances, counts, strict=True) for k in range(1, n + 1))
        return (3 + gained) / (1 + cost[0] + cost[1] * sum(counts))

    every = [(a, b) for a in range(7) for b in range(7) if a + b > 0]
    assert choose_draft_lengths(chances, [6, 6], 3, cost) == list(max(every, key=rate))
    assert rate(max(every, key=rate)) > 3
