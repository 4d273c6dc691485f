"""`python -m benchmarks.speculate`: what guessing tokens gains, and that it costs nothing where nothing is gained.

Two shards of one model in this process, one of which guesses, write the same answers and take turns every few tokens:
what else the machine does meets both. A ratio is of seconds a token within one pair of turns, without guesses to with
them; turns change places from pair to pair. Three kinds of text: greedy answers of the random model of `make bench`
run in circles; sampled at a high temperature none repeats anything; and drawn from two dozen tokens they mislead, as
the last two or three tokens were there before nearly always, and what followed them is right one time in 24. As a
control, neither of the two shards guesses: what that ratio is off by is the method's error.
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
from peregrine_router.launch.prepare import SPECULATIVE_ROWS, STEP_TOKENS
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.execution.runner import Runner

MODEL = Path(__file__).parent.parent / ".bench" / "falcon-1b"
FILE = RESULTS / "speculate.json"
GUESSES = 8
NUM_SLOTS = 32
MAX_TOKENS = 256
"""Of a sequence, with blocks to spare."""
PROMPT_TOKENS = 64
PERIOD = 8
"""Of a prompt that repeats itself."""
NEW_TOKENS = 96
TURN_TOKENS = 8
NUM_MISLEADING = 24
CONTROL = "control: no guesses on either side"
FIRST_TOKEN = 20
"""Those before it are special, among them the ends of text."""


@dataclass(frozen=True, slots=True)
class Case:
    """So many answers of one prompt at once."""

    text: str
    streams: int
    guesses: int = GUESSES

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
    *(Case(CONTROL, streams, guesses=0) for streams in (1, 8)),
    *(Case(text, streams) for streams in (1, 8) for text in ("repeats", "repeats nothing", "misleads")),
    Case("misleads", NUM_SLOTS),
]


@dataclass(slots=True)
class Side:
    """With or without guesses, over all rounds of a case: a server's scheduler and shard, without its sockets."""

    runner: Runner
    most: int
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
            speculation=DraftBudget(self.most, SPECULATIVE_ROWS["cpu"]),
        )

    def begin(self, requests: list[Request]) -> None:
        """Up to the first token of each answer."""
        self.sequences = self.scheduler.submit_group(requests)
        while not all(sequence.num_generated for sequence in self.sequences):
            self.step()

    def turn(self) -> float:
        """Seconds a token, until every answer has some more tokens or its end."""
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
        """The rest of the answers; frees their slots."""
        while not self.is_done:
            self.step()
        self.scheduler.commit(self.runner.execute(self.scheduler.heartbeat()))

    def step(self) -> None:
        step = self.scheduler.schedule()
        assert step is not None
        start = time.perf_counter()
        result = self.runner.execute(step)
        if self.most and step.num_decodes == len(self.sequences):
            self.scheduler.speculation.cost.observe(
                step.num_decodes, result.num_draft_tokens, time.perf_counter() - start
            )
        self.scheduler.commit(result)


def main() -> None:
    """Measures, prints, and keeps the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="measure the demo model, whose steps take a millisecond")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--save", action="store_true", help="write results/speculate.json, the other model's kept")
    options = parser.parse_args()
    if options.only and options.save:
        parser.error("--save keeps what all cases measured: leave --only out")
    path = demo_path() if options.demo else MODEL
    runners = load_shards([config_of(path, NUM_SLOTS, MAX_TOKENS, max_draft_tokens=GUESSES)] * 2)
    entries = []
    for case in CASES:
        if options.only in f"{case.text}, {case.streams}":
            entries.append(measure(runners, case, options.seconds))
            print(describe(entries[-1]), flush=True)
    if options.save:
        others = json.loads(FILE.read_text()) if FILE.exists() else {}
        write_json(FILE, {**others, path.name: {"machine": machine(), "entries": entries}})


def measure(runners: list[Runner], case: Case, seconds: float) -> dict[str, Any]:
    """The ratios of one case, in as many rounds as begin in the time."""
    sides = [Side(runner, most) for runner, most in zip(runners, (0, case.guesses), strict=True)]
    ratios: list[float] = []
    start = time.perf_counter()
    while not ratios or time.perf_counter() - start < seconds:
        ratios += play(sides, case, len(ratios))
    speculation = sides[1].scheduler.speculation
    counts = {"guessed": speculation.num_draft_tokens, "right": speculation.num_accepted}
    return {"text": case.text, "streams": case.streams, "ratios": ratios, **counts}


def play(sides: list[Side], case: Case, round_: int) -> list[float]:
    """The ratio of each pair of turns of one round."""
    # Of two shards one may have its memory in better places: each takes both sides. Without guesses in its steps, what
    # a shard could guess costs a call that returns at once.
    sides[0].runner, sides[1].runner = sides[1].runner, sides[0].runner
    requests = case.requests(sides[0].runner.model.config.vocab_size, round_)
    for side in sides:
        side.begin(requests)
    ratios: list[float] = []
    while not any(side.is_done for side in sides):
        # Whoever comes second is warmer.
        taken = [0.0, 0.0]
        for at in (0, 1) if len(ratios) % 2 else (1, 0):
            taken[at] = sides[at].turn()
        ratios.append(taken[0] / taken[1])
    for side in sides:
        side.end()
    assert [s.token_ids for s in sides[0].sequences] == [s.token_ids for s in sides[1].sequences], "a guess changed one"
    return ratios


def describe(entry: dict[str, Any]) -> str:
    """A line for the terminal."""
    name = f"{entry['text']}, {entry['streams']} at once"
    low, high = median_bounds(entry["ratios"])
    spread, count = quartiles(entry["ratios"], 3), len(entry["ratios"])
    return (
        f"{name:46}{spread} of {count}, the median in {low:.3f}-{high:.3f}; "
        f"{entry['right']} of {entry['guessed']} guesses right"
    )


if __name__ == "__main__":
    main()
