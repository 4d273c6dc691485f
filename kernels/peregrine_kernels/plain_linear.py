"""A linear layer whose weight is not packed: what the backends that keep it as it is have in common."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PlainLinear:
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
