"""`make performance`: docs/performance.md from the data in benchmarks/results, and nothing that the data do not say."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import comparison, gpu_page
from benchmarks.machine import RESULTS, ROOT
from benchmarks.verdicts import verdicts

PAGE = ROOT / "docs" / "performance.md"
INTRODUCTION = """# Performance

Made by `make performance` from the data in [benchmarks/results](../benchmarks/results): measure again rather than edit
this page. Every comparison is of one run in which all took turns; ratios travel to other machines, absolute figures
do not. Figures with brackets are medians, least and most over the rounds.
"""
COMPARISON = """## Against other servers

`make compare` starts every server that is installed (`scripts/peers.sh` says how) on the same seeded random 1.15 B
multi-query Falcon and gives all the same requests at once. "Of the hardware's" is the time that the machine's bandwidth
and GEMM peak, measured beside the run, allow for the load (prompts at peak, then all decode together), over the time
taken. "Ours / theirs" compares tokens a second on weights of the same size. Peers in process, without HTTP, are
flattered. A server that takes more than twice as long as the fastest has a scenario in one round only.
"""
CPUS = {
    "amx": "### On a CPU with AMX\n\n",
    "avx512": "### On a CPU with AVX512-BF16\n\n",
    "avx2": "### On a CPU with AVX2\n\nTorch only emulates bfloat16 there: vLLM and transformers take float32.\n\n",
}
"""As `instruction_set` calls them."""
STEPS = """## A shard's steps

`make bench` holds the steps against their own bare GEMMs, and against `transformers.generate`.
"""
ROUTER = """## The router

`make bench-router` holds the router, on shards that answer at once, against a bare ASGI loop (uvicorn, uvloop) that
streams the same bytes: events a second on the same core, taking turns. "Busy" is that core. The prefix cache is full,
as after hours of service: nearly every block that the router gives out is one that it evicts.
"""
PROMISES = """## What clients notice of each other

`python -m benchmarks.promises`: one server, the seeded 1.15 B Falcon in bfloat16, two API keys. Each figure is a ratio
to the same server without the others, in the same round.
"""
GUESSES = """## Guessed tokens

`python -m benchmarks.speculate`: two shards of one model write the same answers, one of them with `--speculate 8`, and
take turns every eight tokens. Ratios are of seconds a token within a pair of turns, without guesses to with them:
median, first and third quarter, and the bounds within which the median lies 95 times of a hundred. Texts repeat as far
as the model goes on so; misleading ones are drawn from 24 tokens, so that a guess is found and wrong. In the
control neither shard guesses: what its ratio is off by is the method's error.
"""
GUESSING_MODELS = {"falcon-1b": "The seeded 1.15 B Falcon, bfloat16", "demo": "The demo model, steps of a millisecond"}
SIMULATION = """## Policies, simulated

`make simulate` drives the real scheduler through a compressed day of bursty arrivals (Falcon-7B, bfloat16) with steps
that take what their bytes and operations take at a GPU's published peaks, and 2 ms. **Modelled, not measured**: it
ranks policies and says nothing of kernels. In the SLO: first token within {first:.0f} ms, {token:.0f} ms a token on
average. Waits are p50 / p99 in milliseconds.
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(RESULTS))


def page(results: Path) -> str:
    """What there is data for."""
    sections = [INTRODUCTION]
    for name, introduction, section in (
        ("compare", COMPARISON, compared),
        ("model-cpu", STEPS, stepped),
        ("promises", PROMISES, promised),
    ):
        kept = {kind: results / f"{name}-{kind}.json" for kind in CPUS}
        found = [CPUS[kind] + section(json.loads(file.read_text())) for kind, file in kept.items() if file.exists()]
        sections += [introduction, *found] if found else []
    for name, section in (
        ("speculate", guessed),
        ("router", routed),
        ("gpu", gpu_page.measured),
        ("gpu-serve", gpu_page.served),
        ("simulate", simulated),
    ):
        file = results / f"{name}.json"
        if file.exists():
            sections.append(section(json.loads(file.read_text())))
    return "\n".join(sections)


def compared(groups: dict[str, dict[str, Any]]) -> str:
    """Of `make compare`."""
    sections = [verdicts(groups)]
    for name, data in groups.items():
        earlier = "".join(f" {each}: commit {commit[:12]}." for each, commit in data.get("earlier", {}).items())
        of = origin(data["machine"], data["machine"]["commit"])
        sections += [f"#### The servers of the run `{name}`\n\n{of}{earlier}\n", comparison.table(data)]
    return "\n".join(sections)


def stepped(data: dict[str, Any]) -> str:
    """Of `make bench`."""
    rows = [f"| {each['claim']} | {comparison.spread(each['ratios'], 2)} | {each['bar']} |" for each in data["claims"]]
    table = "\n".join(["| ratio | measured | bar |", "|---|---|---|", *rows])
    return f"{origin(data['machine'], data['commit'])}\n\n{table}\n"


def promised(entries: list[dict[str, Any]]) -> str:
    """Of `python -m benchmarks.promises`."""
    machine = entries[0]["machine"]
    rows = [f"| {each['claim']} | {comparison.spread(each['ratios'], 2)} | {each['bar']} |" for each in entries]
    table = "\n".join(["| ratio | measured | bar |", "|---|---|---|", *rows])
    return f"{origin(machine, machine['commit'])}\n\n{table}\n"


def guessed(data: dict[str, dict[str, Any]]) -> str:
    """Of `python -m benchmarks.speculate`, which measures one model at a time."""
    lines = [GUESSES]
    for name, model in GUESSING_MODELS.items():
        if name not in data:
            lines.append(f"{model}: not measured.\n")
            continue
        machine = data[name]["machine"]
        lines += [
            f"{model}. {origin(machine, machine['commit'])}\n",
            "| text | answers at once | without / with | median within | guesses right |",
            "|---|---|---|---|---|",
            *map(guessed_row, data[name]["entries"]),
            "",
        ]
    return "\n".join(lines)


def guessed_row(entry: dict[str, Any]) -> str:
    """One text, so many times at once."""
    low, high = comparison.median_bounds(entry["ratios"])
    right = f"{entry['right']:,} of {entry['guessed']:,}" if entry["guessed"] else "none made"
    cells = [entry["text"], str(entry["streams"]), comparison.quartiles(entry["ratios"], 2), f"{low:.2f}-{high:.2f}"]
    return comparison.markdown_row([*cells, right])


def routed(data: dict[str, Any]) -> str:
    """Of `make bench-router`."""
    rows = [routed_row(data, count) for count in sorted(data["ratios"], key=int)]
    head = "| streams | router / bare loop | bar | router, events/s | busy | failed | memory after each round, MiB |"
    return "\n".join([ROUTER, head, "|---|---|---|---|---|---|---|", *rows, ""])


def routed_row(data: dict[str, Any], count: str) -> str:
    """So many streams."""
    turns = data["turns"][f"router, {count} streams"]
    cells = [
        f"{int(count):,}",
        comparison.spread(data["ratios"][count], 2),
        f"{data['bar']:.2f}",
        f"{statistics.median(turn['load']['steady_rate'] for turn in turns):,.0f}",
        f"{statistics.median(turn['server_busy'] for turn in turns):.0%}",
        str(sum(turn["load"]["num_failed"] for turn in turns)),
        ", ".join(str(turn["rss_bytes"] >> 20) for turn in turns),
    ]
    return comparison.markdown_row(cells)


def simulated(entries: list[dict[str, Any]]) -> str:
    """Of `make simulate`; a chart a device."""
    slo = entries[0]["summary"]["slo"]
    lines = [
        SIMULATION.format(first=slo["first_token"] * 1e3, token=slo["per_token"] * 1e3),
        "| device | tokens a step | at once | tokens/s | in the SLO | first token | between tokens |",
        "|---|---|---|---|---|---|---|",
        *(policy_row(entry) for entry in entries),
        "",
    ]
    for device in dict.fromkeys(entry["device"] for entry in entries):
        lines.append(f"![Time to first token on {device}](../benchmarks/results/simulate-{device.lower()}.svg)\n")
    return "\n".join(lines)


def policy_row(entry: dict[str, Any]) -> str:
    """One policy on one device."""
    summary, policy = entry["summary"], entry["policy"]
    waits = [
        " / ".join(f"{summary[name][p] * 1e3:.0f}" for p in ("p50", "p99")) for name in ("first_token", "inter_token")
    ]
    cells = [
        entry["device"],
        str(policy["max_step_tokens"]),
        str(policy["max_batch_size"]),
        f"{summary['tokens_per_second']:.0f}",
        f"{summary['slo_attainment']:.1%}",
        *waits,
    ]
    return comparison.markdown_row(cells)


def origin(machine: dict[str, Any], commit: str) -> str:
    """Where and with what the figures were made."""
    return f"On {machine['cores']} cores of {machine['cpu']}, commit {commit[:12]}."


if __name__ == "__main__":
    main()
