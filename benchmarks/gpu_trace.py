"""Where a captured step's time goes: each kernel's share, and the gaps between kernels, from the profiler."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

REPLAYS = 5
"""Replays to trace, of which the median one is reported."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One run of one kernel, in microseconds of the device's clock."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One replay, in the order of its kernels' starts."""

    kernels: tuple[Kernel, ...]

    @property
    def microseconds(self) -> float:
        return max(kernel.end for kernel in self.kernels) - self.kernels[0].start

    @property
    def gaps(self) -> list[float]:
        """Gaps, from the end of all earlier kernels to the start of the next one; none where kernels overlap."""
        gaps, end = [], self.kernels[0].end
        for kernel in self.kernels[1:]:
            gaps.append(max(0.0, kernel.start - end))
            end = max(end, kernel.end)
        return gaps

    def after(self, name: str) -> "Trace":
        """The trace after the first run of the kernel `name`."""
        first = next(i for i, kernel in enumerate(self.kernels) if kernel.name == name)
        return Trace(self.kernels[first + 1 :])

    def shares(self) -> dict[str, dict[str, float]]:
        """Kernel name -> (number of runs, total time), most time first."""
        times: dict[str, list[float]] = defaultdict(list)
        for kernel in self.kernels:
            times[kernel.name[:80]].append(kernel.end - kernel.start)
        shares = {name: {"runs": len(each), "microseconds": round(sum(each), 2)} for name, each in times.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]["microseconds"]))

    def as_data(self) -> dict[str, Any]:
        return {
            "microseconds": round(self.microseconds, 2),
            "largest_gap": round(max(self.gaps, default=0.0), 2),
            "all_gaps": round(sum(self.gaps), 2),
            "kernels": self.shares(),
        }


def trace(run: Callable[[], Any]) -> Trace:
    """Traces a step that has run before."""
    traces = sorted((_replay(run) for _ in range(REPLAYS)), key=lambda each: each.microseconds)
    return traces[REPLAYS // 2]


def _replay(run: Callable[[], Any]) -> Trace:
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return Trace(tuple(sorted(_kernels(profile.events() or ()), key=lambda kernel: kernel.start)))


def _kernels(events: Iterable[Any]) -> Iterable[Kernel]:
    for event in events:
        if event.device_type.name == "CUDA":
            yield Kernel(event.name, event.time_range.start, event.time_range.end)
