"""`python -m benchmarks.overload`: short requests on new connections, up to ten times as many as can be answered.

The router on one core, its client on the other. *Router*: shards that answer at once, so the router is the limit.
*Model*: shards whose steps take time, so that a tenth of 1,000 requests a second is the peak, and refusing is the work.
Goodput counts answers of status 200; the time of a 429 is from the connection's start to the answer's last byte.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from benchmarks import streams
from benchmarks.router import CORES, Running, cpu_seconds, request
from benchmarks.short_requests import Answers, closed_loop, open_loop
from peregrine_router.launch.connections import raise_file_limit

NEW_TOKENS = 8
AT_ONCE = (1, 2, 4, 8, 16, 32, 64, 128)
"""Requests under way while the peak is looked for; the router's limit is 128."""
TIMES_PEAK = (1, 2, 10)
MAX_RATE = 1000.0
"""New connections a second up to which the goals hold."""
GOODPUT_BAR, REFUSAL_BAR_SECONDS, SCRAPES_BAR = 0.9, 0.1, 500
NUM_STREAMS, SCRAPERS = 64, 4


@dataclass(frozen=True, slots=True)
class Kind:
    """A server under load."""

    name: str
    step_seconds: float
    batch: int
    """Sequences in the running batch; 0: as many as requests."""


ROUTER, MODEL = Kind("router", 0.0, 0), Kind("model", 0.02, 20)
SCRAPED = Kind("scraped", 0.02, NUM_STREAMS)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each load")
    parser.add_argument("--only", choices=("router", "model", "scrapes"))
    options = parser.parse_args()
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the router, one for its client")
    os.sched_setaffinity(0, {CORES[-1]})
    raise_file_limit(2**16)
    for kind in (ROUTER, MODEL):
        if options.only in (None, kind.name):
            print(f"{kind.name}:")
            measure(kind, options.seconds)
    if options.only in (None, "scrapes"):
        measure_scrapes(options.seconds)


@contextmanager
def server(kind: Kind) -> Iterator[Running]:
    """Runs a router until the block ends."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.overload_server",
        str(CORES[0]),
        str(kind.step_seconds),
        str(kind.batch),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield Running(int(process.stdout.readline()), psutil.Process(process.pid))
        finally:
            process.terminate()


def short_request() -> bytes:
    """A generation of a few tokens, the only request of its connection."""
    body = json.dumps({"inputs": "The falcon waited", "parameters": {"max_new_tokens": NEW_TOKENS}})
    head = f"POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n{body}".encode()


def measure(kind: Kind, seconds: float) -> None:
    """Prints the peak, and a line for each load."""
    with server(kind) as running:
        peak = find_peak(running.port, seconds)
        print(f"{'':24}offered/s  goodput/s  of peak   200 p99      429/s   429 p50   429 p99  failed  busy  client")
        rates = {min(times * peak, MAX_RATE): f"{times} x peak, bounded" for times in TIMES_PEAK}
        if (most := TIMES_PEAK[-1] * peak) > MAX_RATE:
            rates[most] = f"{TIMES_PEAK[-1]} x peak"
        for rate, name in rates.items():
            before = cpu_seconds(running.process)
            answers = open_loop(running.port, short_request(), rate, seconds)
            busy = (cpu_seconds(running.process) - before) / seconds
            print(line(name, answers, peak, busy))


def find_peak(port: int, seconds: float) -> float:
    """The largest goodput of any number of requests at once."""
    closed_loop(port, short_request(), 8, 1.0)
    peak = 0.0
    for at_once in AT_ONCE:
        answers = closed_loop(port, short_request(), at_once, seconds / 2)
        print(
            f"  {at_once:3} at once: {answers.goodput:6.0f}/s, {answers.num_failed} failed, client {answers.busy:.0%}"
        )
        peak = max(peak, answers.goodput)
    return peak


def line(name: str, answers: Answers, peak: float, busy: float) -> str:
    """One load in one line."""
    refused = len(answers.latencies.get(429, ()))
    ms = [1000 * answers.percentile(*each) for each in ((200, 0.99), (429, 0.5), (429, 0.99))]
    offered, share = answers.num_started / answers.seconds, answers.goodput / peak
    return (
        f"  {name:22}{offered:9.0f}  {answers.goodput:9.0f}  {share:7.2f}  "
        f"{ms[0]:8.0f}  {refused / answers.seconds:9.0f}  {ms[1]:8.1f}  {ms[2]:8.1f}  {answers.num_failed:6}  "
        f"{busy:4.0%}  {answers.busy:6.0%}"
    )


def measure_scrapes(seconds: float) -> None:
    """Prints how many scrapes of /metrics are answered beside 64 streams, and what the streams lose."""
    scrape = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with server(SCRAPED) as running:
        calm = _streams(running.port, seconds)
        found: list[streams.Load] = []
        streaming = threading.Thread(target=lambda: found.append(_streams(running.port, seconds)))
        streaming.start()
        answers = closed_loop(running.port, scrape, SCRAPERS, seconds)
        streaming.join()
    ratio = found[0].steady_rate / calm.steady_rate
    p99 = 1000 * answers.percentile(200, 0.99)
    print(f"scrapes of /metrics beside {NUM_STREAMS} streams: {answers.goodput:.0f}/s, p99 {p99:.1f} ms; ", end="")
    print(f"{answers.num_failed} failed; the streams have {ratio:.2f} of their calm rate")


def _streams(port: int, seconds: float) -> streams.Load:
    num_events = math.ceil(seconds / SCRAPED.step_seconds)
    return streams.run(port, request(num_events), NUM_STREAMS, num_events)


if __name__ == "__main__":
    main()
