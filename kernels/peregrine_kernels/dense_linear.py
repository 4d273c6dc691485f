"""A linear layer whose weight is dense and not packed: the common part of the backends that keep it as it is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DenseLinear(ABC):
    """weight [out, in] and bias [out] as they are. See `Linear` for the call, which each backend adds."""

    weight: Tensor
    bias: Tensor | None
    activation: str | None

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @abstractmethod
    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor: ...

    def into(self, x: Tensor, out: Tensor) -> None:
        """The same to out [T, out], whose rows may be strided."""
        out.copy_(self(x))
