"""How long steps take, by their size."""

from collections import deque
from operator import itemgetter

from peregrine_router.interfaces import StepObserver
from peregrine_server.protocol import Step, StepResult

NUM_STEPS_KEPT = 16
MIN_RATE_TOKENS = 32
"""Smaller steps mostly read weights, and say little of what one token more costs."""
RATE_GAIN = 0.2
"""Of a step's rate, in the mean of all before it."""


class StepTimes(StepObserver):
    """How long recent steps took, by their size in powers of two, and what follows for steps to come."""

    def __init__(self) -> None:
        self._recent: dict[int, deque[tuple[int, float]]] = {}
        self._least: dict[int, float] = {}
        """Seconds of the shortest of each."""
        self._rates: dict[int, float] = {}
        """Seconds for a token, a moving mean of each size that counts."""

    def answered(self, step: Step, result: StepResult, seconds: float) -> None:
        """Records a step's time."""
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
        """No step is slower than a larger one: what was measured so has been overtaken, as a first step that compiled
        its kernels. Where no other of its size came, it would be believed for ever."""
        for power in [power for power, least in self._least.items() if power < size and least > seconds]:
            self._least[power] = seconds
            was = self._recent[power]
            self._recent[power] = deque(((n, min(each, seconds)) for n, each in was), maxlen=NUM_STEPS_KEPT)

    def _correct_larger(self, size: int) -> None:
        """Nor does a larger one take more for each token."""
        for power in self._rates:
            if power > size:
                self._rates[power] = min(self._rates[power], self._rates[size])

    def lower_bound(self, num_tokens: int) -> float:
        """Seconds in which a step of so many tokens surely is not done; 0 if nothing like it was measured.

        No step is faster than a smaller one, nor takes less for each token than a larger one.
        """
        size = num_tokens.bit_length()
        least = max((seconds for power, seconds in self._least.items() if power < size), default=0.0)
        alike = (seconds * min(1.0, num_tokens / n) for n, seconds in self._recent.get(size, ()))
        return max(least, min(alike, default=0.0))

    @property
    def max_lower_bound(self) -> float:
        """What `lower_bound` never exceeds, in a tenth of its time."""
        return max(self._least.values(), default=0.0)

    def num_within(self, seconds: float) -> int | None:
        """How many tokens a step computes in that time, by the steps of about that size; None if none were measured."""
        if not self._rates:
            return None
        best = min(self._rates.values())
        return int(seconds / self._rates.get(int(seconds / best).bit_length(), best))


_seconds = itemgetter(1)


def num_tokens(step: Step) -> int:
    """How many tokens a step computes, without those that it guesses, which make it hardly longer."""
    return step.num_decodes + (sum(memoryview(step.num_tokens).cast("i")) if step.num_tokens else 0)
