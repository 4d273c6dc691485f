"""`python -m benchmarks.serve`: load on a running server, as many clients would cause it.

An open loop (`--rate`) sends sessions at their arrival times, a closed one (`--concurrency`) keeps that many clients
busy. The load is a function of `--seed`. Random weights never end a text, so every request asks for its exact number of
tokens.
"""

import argparse
import asyncio
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from benchmarks.load.charts import write_charts
from benchmarks.load.client import Answer, make_api, run_load
from benchmarks.load.report import Slo, summarize, table
from benchmarks.load.workload import Session, Workload
from benchmarks.machine import machine, write_json


def main(argv: list[str] | None = None) -> None:
    """Runs the load, prints the table, saves the requested files."""
    options = parse(argv)
    workload = make_workload(options)
    slo = Slo(options.slo_first_token / 1e3, options.slo_per_token / 1e3)
    answers = asyncio.run(load(options, workload.sessions()))
    summary = summarize(answers, slo)
    print(table(summary))
    for error in sorted({a.error for a in answers if a.error}):
        print("error:", error)
    if options.save:
        write_json(options.save, {"machine": machine(), "workload": asdict(workload), "summary": summary})
    if options.plots:
        print("charts:", *write_charts(options.plots, answers))
    if summary["errors"]:
        raise SystemExit(1)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:3000")
    add("--api", choices=("tgi", "openai"), default="tgi", help="/generate_stream (text) or /v1/completions (ids)")
    add("--model", default="falcon", help="the name that an OpenAI server wants to hear")
    loop = parser.add_mutually_exclusive_group()
    loop.add_argument("--rate", type=float, help="open loop: sessions a second, Poisson arrivals")
    loop.add_argument("--concurrency", type=int, help="closed loop: clients (8 if neither is given)")
    add("--sessions", type=int, default=100)
    add("--input", type=span, default=(32, 512), metavar="A-B", help="tokens of a message")
    add("--output", type=span, default=(16, 128), metavar="A-B", help="tokens of an answer")
    add("--turns", type=span, default=(1, 1), metavar="A-B", help="turns of a conversation")
    add("--shared-prefix", type=int, default=0, help="tokens with which every session begins")
    add("--cancelled", type=float, default=0.0, help="share of requests whose client leaves half-way")
    add("--vocab-size", type=int, default=256, help="ids are drawn from 12 up to here")
    add("--seed", type=int, default=0)
    add("--slo-first-token", type=float, default=1000.0, metavar="MS")
    add("--slo-per-token", type=float, default=100.0, metavar="MS", help="mean time between a request's tokens")
    add("--save", type=Path, metavar="FILE", help="keep workload and figures as JSON")
    add("--plots", type=Path, metavar="FOLDER", help="keep charts as SVG")
    return parser.parse_args(argv)


def span(text: str) -> tuple[int, int]:
    """Parses `32-512`, or `128` for exactly that many. Raises ValueError, which argparse reports."""
    low, _, high = text.partition("-")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last:
        raise ValueError(text)
    return first, last


def make_workload(options: argparse.Namespace) -> Workload:
    return Workload(
        num_sessions=options.sessions,
        input_tokens=options.input,
        output_tokens=options.output,
        rate=options.rate,
        shared_prefix=options.shared_prefix,
        turns=options.turns,
        cancelled=options.cancelled,
        vocab_size=options.vocab_size,
        seed=options.seed,
    )


async def load(options: argparse.Namespace, sessions: list[Session]) -> list[Answer]:
    """Runs the load behind a progress bar; every answer."""
    concurrency = None if options.rate else options.concurrency or 8
    with tqdm(total=sum(len(s.turns) for s in sessions), unit="request", leave=False) as bar:
        api = make_api(options.api, options.model)
        return await run_load(options.url, api, sessions, concurrency, lambda: bar.update() and None)


if __name__ == "__main__":
    main()
