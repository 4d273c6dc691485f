"""`python -m benchmarks.speculate`: the gain of speculative decoding, and its cost where there is nothing to gain.

Two shards of one model in this process, one of which speculates, write the same answers and take turns every few
tokens, so that other work on the machine affects both. A ratio is of seconds a token within one pair of turns, without
drafts to with drafts; turns change places from pair to pair. Three kinds of text: greedy answers of the random model of
`make bench`, which run in circles; answers sampled at a high temperature, which repeat nothing; and answers drawn from
two dozen tokens, which mislead: their last two or three tokens nearly always occurred before, and a draft of what
followed is accepted one time in 24. In a control neither shard speculates: its ratio's distance from 1 is the method's
error.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.comparison import median_bounds, quartiles
from benchmarks.machine import RESULTS, machine, write_json
from benchmarks.shard import config_of, load_shards
from peregrine_router.launch.model_files import demo_path
from peregrine_router.launch.prepare import SPECULATIVE_ROWS
from peregrine_router.options.batching import STEP_TOKENS
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.execution.runner import Runner

MODEL = Path(__file__).parent.parent / ".bench" / "falcon-1b"
FILE = RESULTS / "speculate.json"
MAX_DRAFT_TOKENS = 8
NUM_SLOTS = 32
MAX_TOKENS = 256
"""Tokens of a sequence, with blocks to spare."""
PROMPT_TOKENS = 64
PERIOD = 8
"""Period, in tokens, of a prompt that repeats itself."""
NEW_TOKENS = 96
TURN_TOKENS = 8
NUM_MISLEADING = 24
CONTROL = "control: no drafts on either side"
FIRST_TOKEN = 20
"""First token id to use: those below are special, ends of text among them."""


@dataclass(frozen=True, slots=True)
class Case:
    """Simultaneous answers to one prompt."""

    text: str
    streams: int
    max_draft_tokens: int = MAX_DRAFT_TOKENS

    def requests(self, vocab_size: int, round_: int) -> list[Request]:
        """One group: its prompt is computed once, and each answer draws its own tokens."""
        few = range(FIRST_TOKEN, FIRST_TOKEN + NUM_MISLEADING)
        sampling = {
            "repeats": SamplingParams(),
            "repeats nothing": SamplingParams(do_sample=True, temperature=20.0),
            CONTROL: SamplingParams(do_sample=True, temperature=20.0),
            "misleads": SamplingParams(do_sample=True, temperature=20.0, logit_bias=tuple((i, 1e6) for i in few)),
        }[self.text]
        last = few.stop if self.text == "misleads" else vocab_size
        period = PERIOD if self.text == "repeats" else PROMPT_TOKENS
        passage = np.random.default_rng(round_).integers(FIRST_TOKEN, last, period)
        prompt = tuple(np.resize(passage, PROMPT_TOKENS).tolist())
        seeds = range(self.streams * round_, self.streams * (round_ + 1))
        return [Request(str(seed), prompt, replace(sampling, seed=seed), NEW_TOKENS, ignore_eos=True) for seed in seeds]


CASES = [
    *(Case(CONTROL, streams, max_draft_tokens=0) for streams in (1, 8)),
    *(Case(text, streams) for streams in (1, 8) for text in ("repeats", "repeats nothing", "misleads")),
    Case("misleads", NUM_SLOTS),
]


@dataclass(slots=True)
class Side:
    """One side, with or without drafts, of all rounds of a case: a server's scheduler and shard, without its
    sockets."""

    runner: Runner
    max_draft_tokens: int
    scheduler: Scheduler = field(init=False)
    sequences: list[Sequence] = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            BlockPool(self.runner.ready.num_blocks, self.runner.ready.block_size),
            FairPolicy(NUM_SLOTS, lead=STEP_TOKENS["cpu"]),
            max_batch_size=NUM_SLOTS,
            max_step_tokens=STEP_TOKENS["cpu"],
            eos_token_ids=frozenset(),
            caches_prefixes=False,
            speculation=DraftBudget(self.max_draft_tokens, SPECULATIVE_ROWS["cpu"]),
        )

    def begin(self, requests: list[Request]) -> None:
        """Runs up to the first token of each answer."""
        self.sequences = self.scheduler.submit_group(requests)
        while not all(sequence.num_generated for sequence in self.sequences):
            self.step()

    def turn(self) -> float:
        """Runs until every answer has TURN_TOKENS more tokens or its end; seconds a token."""
        lengths = [sequence.num_generated for sequence in self.sequences]
        goal, start = min(min(lengths) + TURN_TOKENS, NEW_TOKENS), time.perf_counter()
        while min(sequence.num_generated for sequence in self.sequences) < goal:
            self.step()
        taken = time.perf_counter() - start
        return taken / (sum(sequence.num_generated for sequence in self.sequences) - sum(lengths))

    @property
    def is_done(self) -> bool:
        return all(sequence.is_done for sequence in self.sequences)

    def end(self) -> None:
        """Runs to the end of the answers and frees their slots."""
        while not self.is_done:
            self.step()
        self.scheduler.commit(self.runner.execute(self.scheduler.heartbeat()))

    def step(self) -> None:
        step = self.scheduler.schedule()
        assert step is not None
        start = time.perf_counter()
        result = self.runner.execute(step)
        if self.max_draft_tokens and step.num_decodes == len(self.sequences):
            self.scheduler.speculation.cost.observe(
                step.num_decodes, result.num_draft_tokens, time.perf_counter() - start
            )
        self.scheduler.commit(result)


def main() -> None:
    """Measures, prints, and saves the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="measure the demo model, whose steps take a millisecond")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--save", action="store_true", help="write results/speculate.json, the other model's kept")
    options = parser.parse_args()
    if options.only and options.save:
        parser.error("--save keeps what all cases measured: leave --only out")
    path = demo_path() if options.demo else MODEL
    runners = load_shards([config_of(path, NUM_SLOTS, MAX_TOKENS, max_draft_tokens=MAX_DRAFT_TOKENS)] * 2)
    entries = []
    for case in CASES:
        if options.only in f"{case.text}, {case.streams}":
            entries.append(measure(runners, case, options.seconds))
            print(describe(entries[-1]), flush=True)
    if options.save:
        others = json.loads(FILE.read_text()) if FILE.exists() else {}
        write_json(FILE, {**others, path.name: {"machine": machine(), "entries": entries}})


def measure(runners: list[Runner], case: Case, seconds: float) -> dict[str, Any]:
    """Measures one case, in as many rounds as begin within `seconds`."""
    sides = [Side(runner, count) for runner, count in zip(runners, (0, case.max_draft_tokens), strict=True)]
    ratios: list[float] = []
    start = time.perf_counter()
    while not ratios or time.perf_counter() - start < seconds:
        ratios += play(sides, case, len(ratios))
    speculation = sides[1].scheduler.speculation
    counts = {"draft_tokens": speculation.num_draft_tokens, "accepted_tokens": speculation.num_accepted}
    return {"text": case.text, "streams": case.streams, "ratios": ratios, **counts}


def play(sides: list[Side], case: Case, round_: int) -> list[float]:
    """Runs one round; the ratio of each pair of turns."""
    # One of two shards may have better placed memory, so each takes both sides. Without drafts, a shard that could
    # speculate costs a call that returns at once.
    sides[0].runner, sides[1].runner = sides[1].runner, sides[0].runner
    requests = case.requests(sides[0].runner.model.config.vocab_size, round_)
    for side in sides:
        side.begin(requests)
    ratios: list[float] = []
    while not any(side.is_done for side in sides):
        # The second one finds warmer caches.
        taken = [0.0, 0.0]
        for at in (0, 1) if len(ratios) % 2 else (1, 0):
            taken[at] = sides[at].turn()
        ratios.append(taken[0] / taken[1])
    for side in sides:
        side.end()
    assert [s.token_ids for s in sides[0].sequences] == [s.token_ids for s in sides[1].sequences], (
        "a draft changed a token"
    )
    return ratios


def describe(entry: dict[str, Any]) -> str:
    """A line for the terminal."""
    name = f"{entry['text']}, {entry['streams']} at once"
    low, high = median_bounds(entry["ratios"])
    spread, count = quartiles(entry["ratios"], 3), len(entry["ratios"])
    return (
        f"{name:46}{spread} of {count}, the median in {low:.3f}-{high:.3f}; "
        f"{entry['accepted_tokens']} of {entry['draft_tokens']} draft tokens accepted"
    )


if __name__ == "__main__":
    main()
