"""A day of requests: a busy afternoon, a quiet night, bursts. A function of the seed alone."""

import math
import random
from dataclasses import dataclass

DAY_SECONDS = 86_400.0
LONG_PROMPTS = 0.05
"""Share of prompts that are documents."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request."""

    at: float
    """Seconds since the start of the day."""
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Day:
    """An inhomogeneous Poisson process, thinned from its highest rate (Lewis and Shedler, 1979)."""

    mean_rate: float
    """Requests a second without the bursts."""
    seconds: float = DAY_SECONDS
    """Length of the day in seconds. A shorter day compresses rise and fall, and shortens the bursts by the same
    factor."""
    bursts: int = 24
    burst_share: float = 1 / 1000
    """Length of each burst as a share of the day."""
    burst_factor: float = 4.0
    """Factor by which the rate rises in a burst."""
    max_total_tokens: int = 2048
    seed: int = 0

    def arrivals(self) -> list[Arrival]:
        """All arrivals, in order of time."""
        rng = random.Random(self.seed)
        bursts = sorted(rng.uniform(0, self.seconds) for _ in range(self.bursts))
        ceiling = self.mean_rate * 1.8 * self.burst_factor
        clock, arrivals = 0.0, []
        while (clock := clock + rng.expovariate(ceiling)) < self.seconds:
            if rng.random() * ceiling < self.rate(clock, bursts):
                arrivals.append(self._arrival(rng, clock))
        return arrivals

    def rate(self, at: float, bursts: list[float]) -> float:
        """Requests a second: a sine between a fifth and nine fifths of the mean, highest at 15:00, times a burst's."""
        diurnal = 1 - 0.8 * math.cos(2 * math.pi * (at / self.seconds - 3 / 24))
        is_burst = any(start <= at < start + self.burst_share * self.seconds for start in bursts)
        return self.mean_rate * diurnal * (self.burst_factor if is_burst else 1.0)

    def _arrival(self, rng: random.Random, at: float) -> Arrival:
        """One request; lengths are log-normal, as in published traces, and some prompts are documents."""
        median = 1200 if rng.random() < LONG_PROMPTS else 180
        new = min(512, max(4, round(rng.lognormvariate(math.log(120), 0.8))))
        prompt = min(self.max_total_tokens - new, max(8, round(rng.lognormvariate(math.log(median), 0.7))))
        return Arrival(at, prompt, new)
