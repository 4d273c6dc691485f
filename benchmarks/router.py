"""`make bench-router`: the router's throughput as a share of its HTTP stack's.

The app as `peregrine serve` runs it, on shards that answer at once, against a bare ASGI loop that streams the same
bytes, an event a message: both on the same core, taking turns; their client has the other core. What counts is the
ratio of events per second while all streams run. A busy core shows that the server was the limit. The router is
measured as it is after hours of service: its prefix cache is full, and nearly every allocated block is an evicted one.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.router_servers import BLOCK_SIZE
from benchmarks.streams import Load, first_answer, run

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "router.json"
EVENTS = {8: 3000, 64: 1000, 256: 500, 1000: 1000}
"""Number of streams -> events of each: enough for the first to run when the last begins."""
PROMPT, PROMPT_TOKENS = "The falcon waited", 4
BAR = 0.60
CORES = sorted(os.sched_getaffinity(0))
"""Available cores; the first is the servers', the last their client's."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One load on one server."""

    load: Load
    server_busy: float
    """The server's CPU time as a share of the wall time, from the first request to the last byte."""
    rss_bytes: int
    """The server's memory afterwards."""


def main() -> None:
    """Measures, prints, and saves the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="*", choices=EVENTS, default=list(EVENTS))
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORES[-1]})
    if len(CORES) < 2:
        sys.exit("two cores are needed: one for the servers, one for their client")
    turns = measure(options.rounds, options.streams)
    print(table(turns))
    if options.save:
        save(turns)


Turns = dict[tuple[str, int], list[Turn]]


def measure(rounds: int, streams: list[int]) -> Turns:
    """Turns of each server at each number of streams; the first round is a warm-up."""
    turns: Turns = defaultdict(list)
    for count in streams:
        with (
            router_server(count, EVENTS[count]) as router,
            server(first_answer(router.port, request(EVENTS[count]))) as bare,
        ):
            for number in range(rounds + 1):
                for name, each in (("bare", bare), ("router", router)):
                    turn = take_turn(each, count)
                    if number:
                        turns[name, count].append(turn)
    return turns


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    port: int
    process: psutil.Process


def router_server(num_streams: int, num_events: int, **environment: str) -> AbstractContextManager[Running]:
    """The router with as many blocks as one load holds at its end, so that one load fills its prefix cache."""
    return server(b"", num_streams * -(-(PROMPT_TOKENS + num_events) // BLOCK_SIZE), environment)


@contextmanager
def server(events: bytes, num_blocks: int = 0, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Runs the router if there are no events to repeat, else the bare loop, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.router_servers", str(CORES[0]), str(num_blocks)]
    environ = os.environ | dict(environment or {})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(events)
        process.stdin.close()
        try:
            yield Running(int(process.stdout.readline()), psutil.Process(process.pid))
        finally:
            process.terminate()


def request(num_events: int) -> bytes:
    """An ordinary streaming request."""
    body = json.dumps({"inputs": PROMPT, "parameters": {"max_new_tokens": num_events, "ignore_eos": True}})
    head = f"POST /generate_stream HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n{body}".encode()


def take_turn(running: Running, num_streams: int) -> Turn:
    """Runs one load."""
    before = cpu_seconds(running.process)
    load = run(running.port, request(EVENTS[num_streams]), num_streams, EVENTS[num_streams])
    busy = (cpu_seconds(running.process) - before) / load.seconds
    return Turn(load, busy, running.process.memory_info().rss)


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def table(turns: Turns) -> str:
    """A table with a line for each number of streams."""
    lines = ["streams  bare ASGI (events/s)  router (events/s)    ratio (rounds)       busy  client  failed    RSS"]
    for count in sorted({count for _, count in turns}):
        bare, ours = turns["bare", count], turns["router", count]
        each = ratios(turns, count)
        lines.append(
            f"{count:7}  {rate(bare):20,.0f}  {rate(ours):17,.0f}    {statistics.median(each):5.2f} "
            f"({min(each):.2f}-{max(each):.2f})  {statistics.median(turn.server_busy for turn in ours):8.0%}  "
            f"{statistics.median(turn.load.client_busy for turn in ours):6.0%}  "
            f"{sum(turn.load.num_failed for turn in ours):6}  "
            f"{', '.join(str(turn.rss_bytes >> 20) for turn in ours)} MiB"
        )
    return "\n".join(lines)


def rate(turns: list[Turn]) -> float:
    """Median events per second."""
    return statistics.median(turn.load.steady_rate for turn in turns)


def ratios(turns: Turns, count: int) -> list[float]:
    """Ratios of router to bare loop, round by round."""
    pairs = zip(turns["router", count], turns["bare", count], strict=True)
    return [ours.load.steady_rate / bare.load.steady_rate for ours, bare in pairs]


def save(turns: Turns) -> None:
    """Saves the measurements and the machine; other numbers of streams keep their last data."""
    counts = sorted({count for _, count in turns})
    data = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"ratios": {}, "turns": {}}
    data |= {
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "bar": BAR,
    }
    data["ratios"] |= {str(count): ratios(turns, count) for count in counts}
    data["turns"] |= {f"{name}, {count} streams": list(map(asdict, each)) for (name, count), each in turns.items()}
    RESULTS.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
