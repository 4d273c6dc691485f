"""The cost of verifying draft tokens: how much longer steps take with some, by the times of steps with and without.

A step of n decodes that takes one unit of time without draft tokens takes 1 + fixed + each * g with g of them: more
rows than one are another path through the kernels, and each row adds a little work. `fixed` and `each` are fitted for
each n, because the cost of a row depends on their number, by least squares in which the latest steps count most.
"""

from dataclasses import dataclass, field

from peregrine_router.interfaces import StepObserver
from peregrine_server.protocol import Step, StepResult

PLAIN_GAIN = 0.1
"""Weight of a plain step's time in the moving mean."""
KEPT = 0.95
"""Factor on the weight of all earlier speculative steps whenever another is observed."""
MOST = 4.0
"""Times are clamped to this multiple of a plain step's: a longer step was held up by something else."""
EXPECTED = ((1.0, 0.2), (8.0, 0.5))
"""Prior of the fit, (draft tokens, additional time as a fraction of a plain step), each with the weight of one observed
step: a 1.15 B Falcon and the demo on two cores."""


@dataclass(slots=True)
class _Fit:
    """Sums of w, wg, wg^2, wy and wgy over steps of weight w that took y plain steps longer with g draft tokens."""

    sums: list[float] = field(default_factory=lambda: _sums(EXPECTED))

    def add(self, num_draft_tokens: int, additional: float) -> None:
        for at, value in enumerate(_sums(((float(num_draft_tokens), additional),))):
            self.sums[at] = KEPT * self.sums[at] + value

    def line(self) -> tuple[float, float]:
        """(fixed, each). If all steps had about as many draft tokens, `fixed` is 0: the slope is then unknown."""
        w, g, gg, y, gy = self.sums
        spread = w * gg - g * g
        each = (w * gy - g * y) / spread if spread > 0.1 * w * gg else gy / gg
        each = max(min(each, gy / gg), 0.0)
        return max((y - each * g) / w, 0.0), each


class VerificationCostModel(StepObserver):
    """The cost of verifying draft tokens on the shards of one server."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        """Mean seconds of a plain step, by the number of its decodes."""
        self._fits: dict[int, _Fit] = {}

    def answered(self, step: Step, result: StepResult, seconds: float | None) -> None:
        """Records a step that consisted of decodes."""
        if seconds is not None and len(step.slots) // 4 == step.num_decodes:  # int32
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
        """(fixed, each), as fractions of the time of a plain step of `num_decodes`."""
        return self._fit(num_decodes).line()

    def _fit(self, num_decodes: int) -> _Fit:
        return self._fits.setdefault(num_decodes, _Fit())


def _sums(points: tuple[tuple[float, float], ...]) -> list[float]:
    rows = [(1.0, g, g * g, y, g * y) for g, y in points]
    return [sum(column) for column in zip(*rows, strict=True)]
