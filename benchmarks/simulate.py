"""`make simulate`: the real scheduler through a day of bursty arrivals on a GPU that is only modelled.

Every decision is `Scheduler`'s own; a step takes the time that its bytes and operations take at the device's peaks, and
a fixed overhead. What policies do to waiting is seen in minutes. It is no measurement: real kernels miss their roofs.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.arrivals import DAY_SECONDS, Arrival, Day
from benchmarks.hardware import DEVICES, FALCON_7B, Device, Model, step_seconds
from benchmarks.load.client import Answer
from benchmarks.load.report import Slo, first_token_seconds, summarize
from benchmarks.machine import RESULTS, write_json
from benchmarks.plots.svg import Series, cumulative, line_chart
from peregrine_router.request import Request
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy, Policy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.protocol import SamplingParams, Step, StepResult, pack, unpack

BLOCK_SIZE = 64
MEMORY_FRACTION = 0.9
SLO = Slo(first_token=1.0, per_token=0.05)


@dataclass(frozen=True, slots=True)
class Limits:
    """The options of an operator that are compared."""

    max_step_tokens: int
    max_batch_size: int

    @property
    def name(self) -> str:
        return f"{self.max_step_tokens} tokens a step, {self.max_batch_size} at once"


LIMITS = tuple(Limits(tokens, batch) for batch in (64, 256) for tokens in (256, 512, 2048))


class Simulation:
    """A scheduler whose shards answer by the model of their time; the clock jumps from step to step."""

    def __init__(
        self,
        device: Device,
        model: Model,
        limits: Limits,
        num_blocks: int | None = None,
        make_policy: Callable[[int, int], Policy] = FairPolicy,
    ) -> None:
        """`num_blocks` of KV cache; None: as many as fit the device's memory beside the weights. `make_policy`: makes
        the scheduling policy from the batch size and the tokens of a step."""
        self.device, self.model = device, model
        if num_blocks is None:
            room = device.memory_bytes * MEMORY_FRACTION - model.weight_bytes
            num_blocks = int(room / model.kv_bytes_per_token) // BLOCK_SIZE
        if num_blocks < 1:
            raise ValueError(f"{model.name} does not fit a {device.name}: simulate a larger device")
        self.scheduler = Scheduler(
            BlockPool(num_blocks, BLOCK_SIZE),
            make_policy(limits.max_batch_size, limits.max_step_tokens),
            max_batch_size=limits.max_batch_size,
            max_step_tokens=limits.max_step_tokens,
            eos_token_ids=frozenset(),
        )
        self.clock = 0.0
        self.num_steps = 0
        self._shard = _ModelledShard()

    def run(self, arrivals: Sequence[Arrival], bar: tqdm | None = None) -> list[Answer]:
        """One answer for each arrival, in the arrivals' order."""
        answers = [Answer(each.prompt_tokens, each.at) for each in arrivals]
        due = 0
        num_open = 0
        while num_open or due < len(arrivals):
            if not num_open:
                self.clock = max(self.clock, arrivals[due].at)
            while due < len(arrivals) and arrivals[due].at <= self.clock:
                self.scheduler.submit_group([_request(due, arrivals[due])])
                due, num_open = due + 1, num_open + 1
            ended = self._step(answers)
            num_open -= ended
            if bar is not None:
                bar.update(ended)
        return answers

    def _step(self, answers: list[Answer]) -> int:
        """How many requests end with the next step."""
        step = self.scheduler.schedule()
        assert step is not None, "requests are open, and nothing runs"
        result, work = self._shard.execute(step)
        self.clock += step_seconds(self.device, self.model, *work)
        self.num_steps += 1
        ended = 0
        for token in self.scheduler.commit(result):
            answer = answers[int(token.sequence.request.id)]
            answer.token_times.append(self.clock)
            if token.sequence.is_done:
                answer.end = self.clock
                ended += 1
        return ended


class _ModelledShard:
    """Knows how long each slot's sequence is and how much of it is computed; every token is 1."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}
        self._computed: dict[int, int] = {}

    def execute(self, step: Step) -> tuple[StepResult, tuple[int, int, int]]:
        """The answer, and (tokens computed, sequences sampled, tokens of context read)."""
        for new in step.new:
            self._lengths[new.slot] = len(unpack(new.token_ids))
            self._computed[new.slot] = getattr(new, "num_cached", 0)
        slots = unpack(step.slots).tolist()
        counts = [1] * step.num_decodes + unpack(step.num_tokens).tolist()
        for slot, count in zip(slots, counts, strict=True):
            self._computed[slot] += count
        sampled = [slot for slot in slots if self._computed[slot] == self._lengths[slot]]
        for slot in sampled:
            self._lengths[slot] += 1
        context = sum(self._computed[slot] for slot in slots)
        result = StepResult(step.id, pack(sampled), pack([1] * len(sampled)), b"")
        return result, (sum(counts), len(sampled), context)


def _request(number: int, arrival: Arrival) -> Request:
    # A first token of its own, so that no prompt shares a cached block with another.
    prompt = (number, *[0] * (arrival.prompt_tokens - 1))
    return Request(str(number), prompt, SamplingParams(), arrival.new_tokens, ignore_eos=True)


def main(argv: list[str] | None = None) -> None:
    """Simulates all limits on every device."""
    options = parse(argv)
    entries = list(simulate(options))
    print(table(entries))
    if options.save:
        write_json(RESULTS / "simulate.json", [{k: v for k, v in e.items() if k != "chart"} for e in entries])
        for device in {entry["device"]: None for entry in entries}:
            (RESULTS / f"simulate-{device.lower()}.svg").write_text(chart(device, entries))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.1, help="a day, compressed into this many")
    parser.add_argument("--device", choices=[device.name for device in DEVICES], help="this one alone")
    parser.add_argument("--load", type=float, default=0.5, help="mean rate, as a share of what the device could do")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="keep figures and charts in benchmarks/results")
    return parser.parse_args(argv)


def simulate(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Simulates the same day with all limits of a device."""
    for device in [each for each in DEVICES if options.device in (None, each.name)]:
        day = Day(options.load * capacity(device, FALCON_7B), min(options.hours * 3600, DAY_SECONDS), seed=options.seed)
        arrivals = day.arrivals()
        for limits in LIMITS:
            simulation = Simulation(device, FALCON_7B, limits)
            with tqdm(total=len(arrivals), desc=f"{device.name}, {limits.name}", unit="request", leave=False) as bar:
                answers = simulation.run(arrivals, bar)
            yield {
                "device": device.name,
                "model": FALCON_7B.name,
                "day": asdict(day),
                "policy": asdict(limits),
                "name": limits.name,
                "steps": simulation.num_steps,
                "preemptions": simulation.scheduler.num_preemptions,
                "summary": summarize(answers, SLO),
                "chart": cumulative([first_token_seconds(a) * 1e3 for a in answers]),
            }


def capacity(device: Device, model: Model) -> float:
    """Requests a second, of `Day`'s mean lengths, at 64 sequences in every step: a scale for the load, no promise."""
    prompt, new, batch = 300, 150, 64
    decode = step_seconds(device, model, batch, batch, batch * (prompt + new // 2))
    return 1 / (model.flops(prompt, 1) / device.flops_per_second + new * decode / batch)


def table(entries: Sequence[dict[str, Any]]) -> str:
    """One line for each entry; times in milliseconds."""
    header = (
        f"{'device':8}{'policy':32}{'tokens/s':>10}{'goodput':>9}{'in SLO':>8}"
        f"{'first p50':>11}{'first p99':>11}{'token p50':>11}{'token p99':>11}"
    )
    lines = [header, "-" * len(header)]
    for entry in entries:
        s = entry["summary"]
        first, between = s["first_token"], s["inter_token"]
        lines.append(
            f"{entry['device']:8}{entry['name']:32}{s['tokens_per_second']:10.0f}{s['goodput']:9.2f}"
            f"{s['slo_attainment']:8.1%}"
            + "".join(f"{seconds * 1e3:11.1f}" for each in (first, between) for seconds in (each["p50"], each["p99"]))
        )
    return "\n".join(lines)


def chart(device: str, entries: Sequence[dict[str, Any]]) -> str:
    """Cumulative times to first token, a curve for each entry."""
    series = [Series(e["name"], e["chart"]) for e in entries if e["device"] == device]
    title = f"Time to first token, {device} (modelled)"
    return line_chart(title, "milliseconds", "% of requests", series, is_log_x=True)


if __name__ == "__main__":
    main()
