"""What guessing tokens gains and costs: one sequence with and without, taking turns, on texts that repeat or do not.

`python -m benchmarks.speculate --path MODEL`: the scheduler and a shard in one process, no HTTP. Greedy texts of the
random model of `make bench` run in circles; sampled with a seed they repeat nothing.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import RESULTS, machine, write_json
from benchmarks.shard import load_shard
from peregrine_router.blocks import BlockPool
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduler import Scheduler
from peregrine_router.speculation import Speculation
from peregrine_router.startup import SPECULATIVE_ROWS, STEP_TOKENS
from peregrine_server.runner import Runner

MAX_TOKENS = 1024
NUM_SLOTS = 8
PROMPT_TOKENS = 256
GUESSES = 8
SAMPLINGS = {"greedy": SamplingParams(), "sampled": SamplingParams(do_sample=True, seed=5)}


def main() -> None:
    """Measures, prints, and keeps the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, required=True, help="a folder with a model")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--save", action="store_true", help="write results/speculate-MODEL.json")
    options = parser.parse_args()
    runner = load_shard(options.path, NUM_SLOTS, MAX_TOKENS, dtype=options.dtype, speculate=GUESSES)
    entries = [measure(runner, kind, options.rounds, options.new_tokens) for kind in SAMPLINGS]
    for entry in entries:
        print(
            f"{entry['kind']:10}{entry['ratio']:6.2f} times as fast [{min(entry['ratios']):.2f}-"
            f"{max(entry['ratios']):.2f}], {entry['right']} of {entry['guessed']} guesses right"
        )
    if options.save:
        write_json(RESULTS / f"speculate-{options.path.name}.json", {"machine": machine(), "entries": entries})


def measure(runner: Runner, kind: str, rounds: int, new_tokens: int) -> dict[str, object]:
    """Ratios of seconds a token of decoding, without guesses to with them; the first round only warms up."""
    ratios, guessed, right = [], 0, 0
    for round_ in range(rounds + 1):
        prompt = np.random.default_rng(round_).integers(20, runner.model.config.vocab_size, PROMPT_TOKENS).tolist()
        request = Request(str(round_), tuple(prompt), SAMPLINGS[kind], new_tokens, ignore_eos=True)
        # Whoever comes second is warmer: they change places.
        order = (0, GUESSES) if round_ % 2 else (GUESSES, 0)
        taken = {most: seconds(runner, request, most) for most in order}
        with_guesses, speculation = taken[GUESSES]
        if round_:
            ratios.append(taken[0][0] / with_guesses)
            guessed, right = guessed + speculation.num_guessed, right + speculation.num_right
    return {
        "kind": kind,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "guessed": guessed,
        "right": right,
    }


def seconds(runner: Runner, request: Request, guesses: int) -> tuple[float, Speculation]:
    """From the first token to the last."""
    speculation = Speculation(guesses, SPECULATIVE_ROWS["cpu"])
    scheduler = Scheduler(
        BlockPool(runner.ready.num_blocks, runner.ready.block_size),
        max_batch_size=NUM_SLOTS,
        max_step_tokens=STEP_TOKENS["cpu"],
        eos_token_ids=frozenset(),
        caches_prefixes=False,
        speculation=speculation,
    )
    sequence = scheduler.submit(request)
    start = 0.0
    while (step := scheduler.schedule()) is not None:
        scheduler.commit(runner.execute(step))
        if not start and sequence.num_generated:
            start = time.perf_counter()
    return time.perf_counter() - start, speculation


if __name__ == "__main__":
    main()
