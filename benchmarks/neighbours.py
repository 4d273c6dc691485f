"""`python -m benchmarks.neighbours`: milliseconds a token of one stream, while other processes keep cores busy.

Two servers of one model take turns: one as we start it, one whose threads spin as long as OpenMP lets them by default.
To be run on a machine with nothing else to do.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from benchmarks.load.workload import FIRST_ID, Session, Turn
from benchmarks.peers.http import HttpPeer
from benchmarks.peers.peregrine import peregrine
from peregrine_router.launch.model_files import demo_path

SERVERS: Mapping[str, Mapping[str, str]] = {"ours": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}
NEIGHBOURS = (0, 1, 2)
PROMPT = tuple(range(FIRST_ID, FIRST_ID + 16))
SETTLE_SECONDS = 0.3
"""Seconds after which the kernel has found the neighbours a core."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--model", type=Path, default=demo_path())
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(_serving(options.model, variables)) for name, variables in SERVERS.items()}
        for server in servers.values():
            milliseconds_per_token(server, options.tokens)
        samples: dict[tuple[str, int], list[float]] = {(name, n): [] for name in SERVERS for n in NEIGHBOURS}
        for _ in tqdm(range(options.rounds), desc="rounds", leave=False):
            for (name, count), values in samples.items():
                with neighbours(count):
                    values.append(milliseconds_per_token(servers[name], options.tokens))
    print(f"{'busy processes':>16}", *(f"{count:>24}" for count in NEIGHBOURS))
    for name in SERVERS:
        print(f"{name:>16}", *(f"{_spread(samples[name, count]):>24}" for count in NEIGHBOURS))


@contextlib.contextmanager
def _serving(model: Path, variables: Mapping[str, str]) -> Iterator[HttpPeer]:
    server = peregrine(model, "bf16", variables, kv_tokens=4096)
    server.start(Path(tempfile.mkdtemp(prefix="peregrine-neighbours-")))
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keeps `count` processes busy until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(SETTLE_SECONDS)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def milliseconds_per_token(server: HttpPeer, count: int) -> float:
    """The mean over one answer of `count` tokens. Raises RuntimeError if it breaks off."""
    (answer,) = server.run([Session(0.0, (Turn(PROMPT, count),))])
    if answer.error or len(answer.token_times) < 2:
        raise RuntimeError(f"no answer: {answer.error}")
    return 1000 * (answer.token_times[-1] - answer.token_times[0]) / (len(answer.token_times) - 1)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ms ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
