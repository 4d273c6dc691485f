"""The token embedding of a rank."""

import torch

from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.layers.embedding import Embedding


class Alone(TensorParallel):
    """One rank of two whose peer has nothing to add."""

    def all_reduce(self, x: torch.Tensor) -> None:
        """x is the sum already."""


def test_a_rank_embeds_its_own_tokens_and_zeros_for_the_others() -> None:
    """Rows of the rank's part of the vocabulary come from its table; every other token is zero, padding included."""
    table = torch.arange(1.0, 9.0).view(4, 2)
    x = Embedding(table, 4, Alone(1, 2))(torch.tensor([0, 3, 4, 7, 8]))
    assert torch.equal(x, torch.tensor([[0.0, 0], [0, 0], [1, 2], [7, 8], [0, 0]]))
