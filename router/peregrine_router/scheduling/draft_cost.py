"""What guesses cost: how much longer steps take with some, by the times of steps with and without.

A step of n decodes that takes one unit of time without guesses takes 1 + fixed + each * g with g of them: more rows
than one are another path through the kernels, and each row is a little more to do. The two are fitted by least squares,
the latest steps counting most, for each n: what a row costs depends on how many there are.
"""

from dataclasses import dataclass, field

from peregrine_router.interfaces import StepObserver
from peregrine_server.protocol import Step, StepResult

PLAIN_GAIN = 0.1
"""Of a step's time in the moving mean."""
KEPT = 0.95
"""Of the weight of earlier steps with guesses, whenever another is measured."""
MOST = 4.0
"""Times what is expected: a step that takes longer was held up by something else."""
EXPECTED = ((1.0, 0.2), (8.0, 0.5))
"""(guesses, part of a step), as good as one measured step each: a 1.15 B Falcon and the demo on two cores."""


@dataclass(slots=True)
class _Fit:
    """Sums of w, wg, wg^2, wy and wgy over steps that took y more of a step with g guesses, of weights w."""

    sums: list[float] = field(default_factory=lambda: _sums(EXPECTED))

    def add(self, num_draft_tokens: int, more: float) -> None:
        for at, value in enumerate(_sums(((float(num_draft_tokens), more),))):
            self.sums[at] = KEPT * self.sums[at] + value

    def line(self) -> tuple[float, float]:
        """(fixed, each). Where all steps had about as many guesses the line goes through nothing at none."""
        w, g, gg, y, gy = self.sums
        spread = w * gg - g * g
        each = (w * gy - g * y) / spread if spread > 0.1 * w * gg else gy / gg
        each = max(min(each, gy / gg), 0.0)
        return max((y - each * g) / w, 0.0), each


class VerificationCostModel(StepObserver):
    """The cost of verifying draft tokens on the shards of one server."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        """Seconds of a step without guesses, by the number of its decodes."""
        self._fits: dict[int, _Fit] = {}

    def answered(self, step: Step, result: StepResult, seconds: float) -> None:
        """Records a step that consisted of decodes."""
        if len(step.slots) // 4 == step.num_decodes:  # int32
            self.observe(step.num_decodes, result.num_draft_tokens, seconds)

    def observe(self, num_decodes: int, num_draft_tokens: int, seconds: float) -> None:
        """Records how long a step of decodes took."""
        plain = self._plain.get(num_decodes)
        if not num_draft_tokens:
            mean = seconds if plain is None else plain
            self._plain[num_decodes] = mean + PLAIN_GAIN * (min(seconds, MOST * mean) - mean)
        elif plain is not None:
            self._fit(num_decodes).add(num_draft_tokens, min(seconds / plain, MOST) - 1.0)

    def predict(self, num_decodes: int) -> tuple[float, float]:
        """(fixed, each), in parts of a step of so many decodes without guesses."""
        return self._fit(num_decodes).line()

    def _fit(self, num_decodes: int) -> _Fit:
        return self._fits.setdefault(num_decodes, _Fit())


def _sums(points: tuple[tuple[float, float], ...]) -> list[float]:
    rows = [(1.0, g, g * g, y, g * y) for g, y in points]
    return [sum(column) for column in zip(*rows, strict=True)]
