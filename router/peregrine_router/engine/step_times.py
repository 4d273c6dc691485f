"""Times of recent steps by size, and estimates for the next ones."""

from collections import deque
from operator import itemgetter

from peregrine_router.interfaces import StepObserver
from peregrine_server.protocol import Step, StepResult

NUM_STEPS_KEPT = 16
"""Recent steps of each size that count."""
MIN_RATE_TOKENS = 32
"""Minimum tokens of a step that counts for the time per token: smaller ones mostly read weights."""
RATE_GAIN = 0.2
"""Weight of the latest step in the moving mean of the time per token."""


class StepTimes(StepObserver):
    """The times of recent steps, grouped by size in powers of two, and the bounds that follow for other steps."""

    def __init__(self) -> None:
        self._recent: dict[int, deque[tuple[int, float]]] = {}
        self._least: dict[int, float] = {}
        """Seconds of the fastest recent step of each size."""
        self._rates: dict[int, float] = {}
        """Moving mean of the seconds per token, by size."""

    def answered(self, step: Step, result: StepResult, seconds: float | None) -> None:
        """Records a step's time."""
        if seconds is not None:
            self.observe(num_tokens(step), seconds)

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Records how long a step of `num_tokens` took."""
        size = num_tokens.bit_length()
        recent = self._recent.get(size)
        if recent is None:
            recent = self._recent[size] = deque(maxlen=NUM_STEPS_KEPT)
        recent.append((num_tokens, seconds))
        self._least[size] = min(recent, key=_seconds)[1]
        self._correct_smaller(size, seconds)
        if num_tokens >= MIN_RATE_TOKENS:
            rate = seconds / num_tokens
            mean = self._rates.get(size, rate)
            self._rates[size] = mean + RATE_GAIN * (rate - mean)
            self._correct_larger(size)

    def _correct_smaller(self, size: int, seconds: float) -> None:
        """Lowers the estimates of smaller sizes to the time of this step. A larger step that finished faster proves
        that they are stale (for example a first step that included kernel compilation); they would persist until
        another step of that size ran."""
        for power in [power for power, least in self._least.items() if power < size and least > seconds]:
            self._least[power] = seconds
            was = self._recent[power]
            self._recent[power] = deque(((n, min(each, seconds)) for n, each in was), maxlen=NUM_STEPS_KEPT)

    def _correct_larger(self, size: int) -> None:
        """Lowers the time per token of larger sizes to that of this one, likewise."""
        for power in self._rates:
            if power > size:
                self._rates[power] = min(self._rates[power], self._rates[size])

    def lower_bound(self, num_tokens: int) -> float:
        """Seconds that a step of `num_tokens` takes at least; 0 if nothing is known about it.

        A step is not faster than a smaller one, and takes no less time per token than a larger one.
        """
        size = num_tokens.bit_length()
        least = max((seconds for power, seconds in self._least.items() if power < size), default=0.0)
        alike = (seconds * min(1.0, num_tokens / n) for n, seconds in self._recent.get(size, ()))
        return max(least, min(alike, default=0.0))

    @property
    def max_lower_bound(self) -> float:
        """Upper bound on `lower_bound()` for any size; ten times cheaper to compute."""
        return max(self._least.values(), default=0.0)

    def num_within(self, seconds: float) -> int | None:
        """Tokens that a step computes in that time, by steps of about that size; None if no step was observed."""
        if not self._rates:
            return None
        best = min(self._rates.values())
        return int(seconds / self._rates.get(int(seconds / best).bit_length(), best))


_seconds = itemgetter(1)


def num_tokens(step: Step) -> int:
    """Tokens that a step computes, without draft tokens, which make it hardly longer."""
    return step.num_decodes + (sum(memoryview(step.num_tokens).cast("i")) if step.num_tokens else 0)
