"""`python -m benchmarks.grammar`: what a constrained request costs its neighbours.

Eight streams: alone, with a ninth that is free, with a ninth that follows a grammar, and with one that has just come
with a grammar not compiled yet. Turns are interleaved; what counts are the ratios to the turn with a free ninth stream.
On the 1.15 B model of `make bench`; `--demo` takes the demo, whose steps of a millisecond show what a mask costs
in itself. To be run on a machine with nothing else to do.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoint import make_checkpoint
from benchmarks.shard import load_shard
from benchmarks.vocabulary import make_tokenizer
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import Request
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import Grammar, SamplingParams

STREAMS = 8
MODEL = Path(__file__).parent.parent / ".bench" / "falcon-1b"
END_OF_TEXT_ID = 11
STEPS = 25
"""Decode steps of one turn, of which the lower quartile counts: other work on the machine only adds time."""
ARRIVAL_STEPS = 3
"""Steps in which a new request's prompt is computed and its grammar compiled; the longest counts."""
MAX_TOKENS = 256
PROMPT = tuple(range(100, 132))
BAR = 1.05


def schema(size: int) -> Grammar:
    """An array of records of `size` optional fields: text, numbers, choices."""
    kinds = [{"type": "string"}, {"type": "integer"}, {"type": "number"}, {"enum": ["north", "south", "east"]}]
    fields = {f"field_{i}": kinds[i % len(kinds)] for i in range(size)}
    record = {"type": "object", "properties": fields, "required": list(fields)[:4], "additionalProperties": False}
    return Grammar("json_schema", json.dumps({"type": "array", "items": record, "minItems": 20}))


@dataclass(frozen=True, slots=True)
class Turn:
    """The ninth stream, and whether its arrival is timed or the time afterwards."""

    name: str
    ninth: SamplingParams | None
    is_arrival: bool = False


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--demo", action="store_true", help="measure the demo model")
    options = parser.parse_args()
    rounds = options.rounds
    path, end_of_text_id = (demo_path(), 0) if options.demo else (bench_model(), END_OF_TEXT_ID)
    runner = load_shard(path, STREAMS + 1, MAX_TOKENS, eos_token_ids=(end_of_text_id,))
    samples: dict[str, list[float]] = defaultdict(list)
    for number in range(-1, rounds):  # The first warms up.
        for turn in turns(number):
            seconds = run(runner, turn)
            if number >= 0:
                samples[turn.name].append(max(seconds) if turn.is_arrival else statistics.quantiles(seconds)[0])
    report(samples)


def bench_model() -> Path:
    """The folder of the 1.15 B model, with a tokenizer."""
    config = make_checkpoint(MODEL)
    make_tokenizer(MODEL, config.vocab_size, END_OF_TEXT_ID)
    return MODEL


def turns(number: int) -> list[Turn]:
    """The turns of a round. A grammar of a new size each round is in no cache; the other one is compiled once."""
    return [
        Turn("eight alone", None),
        Turn("with a ninth", SamplingParams()),
        Turn("with a constrained ninth", SamplingParams(grammar=schema(8))),
        Turn("as a ninth arrives", SamplingParams(), is_arrival=True),
        Turn("as a constrained ninth arrives", SamplingParams(grammar=schema(200 + number)), is_arrival=True),
    ]


def run(runner: Runner, turn: Turn) -> list[float]:
    """Runs one turn; seconds of each step of the eight streams."""
    pool = BlockPool(runner.ready.num_blocks, runner.ready.block_size)
    scheduler = Scheduler(
        pool,
        FairPolicy(STREAMS + 1, lead=512),
        max_batch_size=STREAMS + 1,
        max_step_tokens=512,
        eos_token_ids=frozenset(),
    )
    for i in range(STREAMS):
        scheduler.submit_group([Request(str(i), PROMPT, SamplingParams(), MAX_TOKENS - len(PROMPT))])
    step(runner, scheduler)
    if turn.ninth is not None:
        scheduler.submit_group([Request("ninth", PROMPT, turn.ninth, MAX_TOKENS - len(PROMPT))])
    count = ARRIVAL_STEPS + (0 if turn.is_arrival else STEPS)
    seconds = [step(runner, scheduler) for _ in range(count)]
    for sequence in list(scheduler.running):
        scheduler.cancel(sequence)
    runner.execute(scheduler.heartbeat())
    return seconds[:ARRIVAL_STEPS] if turn.is_arrival else seconds[ARRIVAL_STEPS:]


def step(runner: Runner, scheduler: Scheduler) -> float:
    """Runs one step; its seconds, the router's part included."""
    start = time.perf_counter()
    work = scheduler.schedule()
    assert work is not None
    scheduler.commit(runner.execute(work))
    return time.perf_counter() - start


def report(samples: dict[str, list[float]]) -> None:
    """Medians over the rounds in milliseconds, and the claims: medians of the ratios within a round."""
    for name, seconds in samples.items():
        print(f"{name:58} {statistics.median(seconds) * 1000:7.2f} ms")
    ratio = median_ratio(samples, "with a constrained ninth", "with a ninth")
    print(f"{'step with a constrained ninth / with a free one':58} {ratio:7.3f}   (at most {BAR})")
    ratio = median_ratio(samples, "as a constrained ninth arrives", "as a ninth arrives")
    print(f"{'longest step of its arrival / of a free one':58} {ratio:7.3f}")


def median_ratio(samples: dict[str, list[float]], one: str, other: str) -> float:
    """Median ratio of two turns of the same round."""
    return statistics.median(a / b for a, b in zip(samples[one], samples[other], strict=True))


if __name__ == "__main__":
    main()
