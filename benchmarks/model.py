"""`make bench`: how near a shard's steps come to their bare GEMMs, and how far ahead of transformers they are.

Everything is measured in one run, probes taking turns, so that a drift of the machine's speed affects all alike.
Claims are the ratios; the absolute figures say which machine it was.
"""

import argparse
import os
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.checkpoint import make_checkpoint
from benchmarks.machine import RESULTS as FOLDER
from benchmarks.machine import ROOT, instruction_set, machine, write_json
from benchmarks.peak import MEMORY_BYTES, Memory
from benchmarks.probes import BareGemms, Ours, Transformers
from peregrine_router.shards.shard_process import SHARD_ENVIRONMENT

RESULTS = FOLDER / f"model-cpu-{instruction_set()}.json"
BATCHES = (1, 4, 8, 32)
PROMPTS = (128, 1024)
CONTEXT = 128
STEPS = 12
"""Decode steps of one turn."""
PEER_BATCHES = (1, 8)
PACKINGS = ("ours", "oneDNN")
"""Packings of the bare GEMMs; a step is compared with the faster one."""

QUANTIZED = ("int8", "int4")
INT4_BARS = (
    *(("decode 1", "ours", 3.0), ("decode 1", "int8", 1.6), ("decode 4", "ours", 2.3)),
    *(("decode 8", "ours", 2.0), ("decode 8", "int8", 1.0), ("decode 32", "int8", 0.9)),
    *((f"prefill {length}", "int8", 0.9) for length in PROMPTS),
)
"""Steps, what int4 is compared with, and how many times as fast it should be."""

Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A ratio with a bar."""

    text: str
    ratios: list[float]
    bar: float
    is_ceiling: bool

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def holds(self) -> bool:
        return self.median <= self.bar if self.is_ceiling else self.median >= self.bar


def main() -> None:
    """Measures, prints, and saves the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--path", type=Path, default=ROOT / ".bench" / "falcon-1b", help="where the model is kept")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    run_as_shards_do()
    make_checkpoint(options.path)
    samples = measure(options.path, options.rounds)
    claims = make_claims(samples)
    print(table(samples, claims))
    if options.save:
        save(samples, claims)


def run_as_shards_do() -> None:
    """Restarts this process with the shards' environment, which its children do not get."""
    if not SHARD_ENVIRONMENT.keys() <= os.environ.keys():
        command = [sys.executable, "-m", "benchmarks.model", *sys.argv[1:]]
        os.execve(sys.executable, command, {**SHARD_ENVIRONMENT, **os.environ})
    for name in SHARD_ENVIRONMENT:
        del os.environ[name]


def measure(path: Path, rounds: int) -> Samples:
    """Probe -> seconds; the lists of one round's turns are aligned."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    ours = Ours(path, threads)
    quantized = {name: Ours(path, threads, name) for name in QUANTIZED}
    peer, memory, gemms = Transformers(path, threads), Memory(), BareGemms(ours.model)
    samples: Samples = defaultdict(list)
    for slot in tqdm(range(max(BATCHES)), desc="filling the KV cache", leave=False):
        for each in (ours, *quantized.values()):
            each.prefill(CONTEXT, slot)
    # The first round fills caches and builds oneDNN's primitives for every shape.
    for round_ in tqdm(range(rounds + 1), desc="rounds", leave=False):
        turn: Samples = defaultdict(list)
        turn["memory"].append(memory.seconds())
        for batch in BATCHES:
            decode_turn(turn, ours, quantized, gemms, peer, batch)
        for length in PROMPTS:
            for packing in PACKINGS:
                turn[f"{packing} GEMMs, prefill {length}"].append(gemms.seconds(packing, length, 1))
            turn[f"ours prefill {length}"].append(ours.prefill(length, slot=max(BATCHES)))
            for name, each in quantized.items():
                turn[f"{name} prefill {length}"].append(each.prefill(length, slot=max(BATCHES)))
            turn[f"transformers prefill {length}"] += peer.generate(1, length, 1)
        if round_:
            for name, values in turn.items():
                samples[name].append(statistics.median(values))
    return samples


def decode_turn(
    turn: Samples, ours: Ours, quantized: dict[str, Ours], gemms: BareGemms, peer: Transformers, batch: int
) -> None:
    """Alternates single steps and their bare GEMMs, then runs transformers on as many streams of the same context."""
    for each in (ours, *quantized.values()):
        each.rewind(CONTEXT)
    for _ in range(STEPS):
        for packing in PACKINGS:
            turn[f"{packing} GEMMs, decode {batch}"].append(gemms.seconds(packing, batch, batch))
        turn[f"ours decode {batch}"].append(ours.decode(batch))
        for name, each in quantized.items():
            turn[f"{name} decode {batch}"].append(each.decode(batch))
    if batch in PEER_BATCHES:
        _first, *steps = peer.generate(batch, CONTEXT, 1 + STEPS)
        turn[f"transformers decode {batch}"] += steps


def make_claims(samples: Samples) -> list[Claim]:
    """The ratios, round by round."""

    def fastest(step: str) -> str:
        return min(
            (f"{packing} GEMMs, {step}" for packing in PACKINGS), key=lambda name: statistics.median(samples[name])
        )

    def ratios(above: str, below: str) -> list[float]:
        return [a / b for a, b in zip(samples[above], samples[below], strict=True)]

    claims = [
        Claim(
            f"decode step / its bare GEMMs, batch {b}", ratios(f"ours decode {b}", fastest(f"decode {b}")), 1.10, True
        )
        for b in BATCHES
    ]
    claims += [
        Claim(f"prefill / its bare GEMMs, {n} tokens", ratios(f"ours prefill {n}", fastest(f"prefill {n}")), 1.15, True)
        for n in PROMPTS
    ]
    claims += [
        Claim(f"int8, times our bfloat16, {step}", ratios(f"ours {step}", f"int8 {step}"), 1.75, False)
        for step in (*(f"decode {b}" for b in BATCHES), *(f"prefill {n}" for n in PROMPTS))
    ]
    claims += [
        Claim(
            f"int4, times our {'bfloat16' if other == 'ours' else other}, {step}",
            ratios(f"{other} {step}", f"int4 {step}"),
            bar,
            False,
        )
        for step, other, bar in INT4_BARS
    ]
    claims += [
        Claim(
            f"times transformers, {b} stream{'s' * (b > 1)}",
            ratios(f"transformers decode {b}", f"ours decode {b}"),
            bar,
            False,
        )
        for b, bar in ((1, 1.8), (8, 2.5))
    ]
    return claims


def table(samples: Samples, claims: list[Claim]) -> str:
    """A table of medians over the rounds, minimum and maximum in brackets."""
    median = {name: statistics.median(values) for name, values in samples.items()}
    lines = [f"memory read {MEMORY_BYTES / median['memory'] / 1e9:.1f} GB/s; {len(samples['memory'])} rounds", ""]
    lines.append(
        f"{'':16}{'our GEMMs':>13}{'oneDNN GEMMs':>14}{'ours':>13}"
        + "".join(f"{name:>15}" for name in ("ours", *QUANTIZED, "transformers"))
    )
    for kind, sizes in (("decode", BATCHES), ("prefill", PROMPTS)):
        for size in sizes:
            step = f"{kind} {size}"
            seconds, peer = median[f"ours {step}"], median.get(f"transformers {step}")
            bare = [median[f"{packing} GEMMs, {step}"] * 1e3 for packing in PACKINGS]
            lines.append(
                f"{step:16}{bare[0]:10.1f} ms{bare[1]:11.1f} ms{seconds * 1e3:10.1f} ms{size / seconds:9.1f} tok/s"
                + "".join(f"{size / median[f'{name} {step}']:9.1f} tok/s" for name in QUANTIZED)
                + (f"{size / peer:9.1f} tok/s" if peer else "")
            )
    lines.append("")
    for claim in claims:
        sign = "<=" if claim.is_ceiling else ">="
        spread = f"{min(claim.ratios):.2f}-{max(claim.ratios):.2f}"
        verdict = "holds" if claim.holds else "MISSED"
        lines.append(f"{claim.text:44}{claim.median:6.2f}  [{spread}]  {sign} {claim.bar}  {verdict}")
    return "\n".join(lines)


def save(samples: Samples, claims: list[Claim]) -> None:
    """Saves machine, versions, commit and every sample."""
    here = machine()
    data = {
        "machine": here,
        "torch": torch.__version__,
        "python": here["python"],
        "commit": here["commit"],
        "seconds": samples,
        "claims": [{"claim": c.text, "median": c.median, "ratios": c.ratios, "bar": c.bar} for c in claims],
    }
    write_json(RESULTS, data)


if __name__ == "__main__":
    main()
