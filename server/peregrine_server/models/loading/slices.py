"""A rank's slices of a tensor's axes: pure arithmetic. Imports no torch."""

import math
from dataclasses import dataclass

ALIGNMENT = 64
"""Split widths are padded to it: rows stay 128-byte aligned in 16 bits, and quantization groups stay whole."""


@dataclass(frozen=True, slots=True)
class Run:
    """`length` consecutive elements: where they are in the checkpoint's tensor and where in the rank's."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A rank's part of one axis: `runs` of the checkpoint's axis, zeros everywhere else."""

    size: int
    """Length of the rank's axis, padding included."""
    runs: tuple[Run, ...]

    @property
    def num_real(self) -> int:
        """Elements that come from the checkpoint."""
        return sum(run.length for run in self.runs)

    @property
    def is_padded(self) -> bool:
        return self.num_real < self.size

    def scaled(self, factor: int) -> "Slice":
        """The same slice where every element stands for `factor` consecutive ones."""
        runs = (Run(run.source * factor, run.target * factor, run.length * factor) for run in self.runs)
        return Slice(self.size * factor, tuple(runs))

    def merged(self) -> "Slice":
        """The same slice with runs that continue one another joined."""
        runs: list[Run] = []
        for run in self.runs:
            last = runs[-1] if runs else None
            if last and (last.source + last.length, last.target + last.length) == (run.source, run.target):
                runs[-1] = Run(last.source, last.target, last.length + run.length)
            else:
                runs.append(run)
        return Slice(self.size, tuple(runs))


def whole(size: int) -> Slice:
    """An axis that is not split."""
    return Slice(size, (Run(0, 0, size),))


def even(size: int, rank: int, num_ranks: int) -> Slice:
    """Consecutive equal parts; one rank takes the axis as it is."""
    if num_ranks == 1:
        return whole(size)
    part = math.ceil(size / num_ranks / ALIGNMENT) * ALIGNMENT
    start = rank * part
    length = max(0, min(part, size - start))
    return Slice(part, (Run(start, 0, length),) if length else ())
