"""`make bench-traces`: what traces cost the router.

Three routers as in benchmarks/router.py, on shards that answer at once: without traces, with every request traced to a
collector (rotel), and with a collector that is not there. They take turns on one core; client and collector have the
other. What counts is the ratio of events per second while all streams run. Spans begin and end outside of that, so two
more are shown: events per second of the whole load, and per second of the server's CPU, exports included, which other
processes on the machine disturb least.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.router import CORES, EVENTS, ROOT, Turn, cpu_seconds, router_server, take_turn

RESULTS = ROOT / "benchmarks" / "results" / "traces.json"
STREAMS = 256
BAR = 0.97
"""Least share of the events per second that is left with traces."""
GRPC_PORT, HTTP_PORT, CLOSED_PORT = 14317, 14318, 14319
EXPORT_SECONDS = 1.0
"""Pause behind each turn, in which its spans are exported."""


@dataclass(frozen=True, slots=True)
class TracedTurn:
    """One load on one router."""

    turn: Turn
    cpu_seconds: float
    """The server's, with those of the pause."""


def main() -> None:
    """Measures, prints, and saves the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORES[-1]})
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the servers, one for their client")
    with collector():
        turns = measure(options.rounds)
    print(table(turns))
    if options.save:
        save(turns)


@contextmanager
def collector() -> Iterator[None]:
    """Rotel, which forgets what it receives, until the block ends."""
    import rotel

    agent = Path(rotel.__file__).with_name("rotel-agent")
    with tempfile.TemporaryDirectory() as folder:
        endpoints = ["--otlp-grpc-endpoint", f"127.0.0.1:{GRPC_PORT}", "--otlp-http-endpoint", f"127.0.0.1:{HTTP_PORT}"]
        files = ["--pid-file", f"{folder}/pid", "--log-file", f"{folder}/log"]
        command = [str(agent), "start", *endpoints, *files, "--exporter", "blackhole"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()


Turns = dict[str, list[TracedTurn]]


def measure(rounds: int) -> Turns:
    """Turns of each router; the first round is a warm-up."""
    turns: Turns = defaultdict(list)
    ports = {"off": None, "on": GRPC_PORT, "dead": CLOSED_PORT}
    with ExitStack() as stack:
        routers = {
            name: stack.enter_context(
                router_server(STREAMS, EVENTS[STREAMS], OTLP_ENDPOINT=f"http://127.0.0.1:{port}" if port else "")
            )
            for name, port in ports.items()
        }
        for number in range(rounds + 1):
            for name, router in routers.items():
                before = cpu_seconds(router.process)
                turn = take_turn(router, STREAMS)
                time.sleep(EXPORT_SECONDS)
                if number:
                    turns[name].append(TracedTurn(turn, cpu_seconds(router.process) - before))
    return turns


RATES: dict[str, Callable[[TracedTurn], float]] = {
    "steady": lambda each: each.turn.load.steady_rate,
    "whole": lambda each: each.turn.load.num_events / each.turn.load.seconds,
    "CPU": lambda each: each.turn.load.num_events / each.cpu_seconds,
}
"""Events per second: while all streams run, over the whole load, and of the server's CPU."""


def ratios(turns: Turns, name: str, rate: str) -> list[float]:
    """Ratios of a router with traces to the one without, round by round."""
    return [RATES[rate](each) / RATES[rate](off) for each, off in zip(turns[name], turns["off"], strict=True)]


def table(turns: Turns) -> str:
    """A line for each router and rate."""
    lines = [f"{STREAMS} streams  rate    events/s   ratio (rounds)      failed  RSS"]
    for name, each in turns.items():
        for rate, read in RATES.items():
            found = ratios(turns, name, rate)
            lines.append(
                f"{name:11}  {rate:6} {statistics.median(map(read, each)):9,.0f}   {statistics.median(found):.3f} "
                f"({min(found):.3f}-{max(found):.3f})  {sum(one.turn.load.num_failed for one in each):5}  "
                f"{each[-1].turn.rss_bytes >> 20} MiB"
            )
    return "\n".join(lines)


def save(turns: Turns) -> None:
    """Saves the measurements and the machine."""
    data = {
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "streams": STREAMS,
        "bar": BAR,
        "ratios": {f"{name}, {rate}": ratios(turns, name, rate) for name in ("on", "dead") for rate in RATES},
        "turns": {name: list(map(asdict, each)) for name, each in turns.items()},
    }
    RESULTS.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
