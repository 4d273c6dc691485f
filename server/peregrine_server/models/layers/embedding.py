"""Token embedding and output head, their rows split over the ranks."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels import Linear
from peregrine_server.distributed.tensor_parallel import TensorParallel


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The embedding table, its rows split over the ranks."""

    table: Tensor
    """[V / ranks, H]; rows past the vocabulary are zero."""
    first_token: int
    parallel: TensorParallel

    def __call__(self, token_ids: Tensor) -> Tensor:
        """token_ids int64[T] -> [T, H], alike on every rank."""
        if self.parallel.size == 1:
            return F.embedding(token_ids, self.table)
        rows = token_ids - self.first_token
        is_elsewhere = (rows < 0) | (rows >= len(self.table))
        x = F.embedding(rows.masked_fill(is_elsewhere, 0), self.table).masked_fill_(is_elsewhere[:, None], 0)
        self.parallel.all_reduce(x)
        return x


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The output head, its rows split over the ranks."""

    linear: Linear
    vocab_size: int
    parallel: TensorParallel

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [S, H] -> logits float32[S, V], alike on every rank."""
        logits = self.parallel.all_gather(self.linear(hidden))
        return logits[:, : self.vocab_size].float()
