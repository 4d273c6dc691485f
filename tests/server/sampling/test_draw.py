"""The random numbers of the draw, and the draw itself."""

import itertools

import numpy as np
import torch

from peregrine_server.sampling.draw import cumulative_probabilities, draw, uniforms


def test_neighbouring_seeds_and_positions_are_independent() -> None:
    """Seeds 0..99 at positions 0..99 give 10,000 different numbers, spread evenly over [0, 1)."""
    pairs = np.array(list(itertools.product(range(100), range(100))))
    values = uniforms(pairs[:, 0].astype(np.uint64), pairs[:, 1])
    assert len(np.unique(values)) == 10_000
    assert (np.bincount((values * 10).astype(int), minlength=10) > 850).all()
    assert ((values >= 0) & (values < 1)).all()


def test_a_token_of_no_probability_is_never_drawn() -> None:
    """At either end of the unit interval the draw stays among the tokens left by the warpers."""
    scores = torch.full((3, 8), float("-inf"))
    scores[:, 3:5] = 0.0
    ids = draw(cumulative_probabilities(scores), torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64))
    assert set(ids.tolist()) == {3, 4}
