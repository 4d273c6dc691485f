"""`python -m benchmarks.gpu_serve`: what serving adds to a model's steps on a GPU.

Streams of one length from two running servers that take turns, one with the overlapped loop and one with the plain,
against the same decodes as bare CUDA graphs: what is between them is scheduling, sampling, messages, text and sockets.
Weights are random; the client reads sockets and parses nothing.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

from benchmarks.checkpoint import CONFIG, make_checkpoint
from benchmarks.gpu import decode_step, seconds, this_device
from benchmarks.gpu_model import CUDA, hf_config, random_falcon
from benchmarks.kernel_costs import Work
from benchmarks.machine import RESULTS, ROOT, machine, write_json
from benchmarks.peers.peregrine import MAX_TOTAL_TOKENS, peregrine
from benchmarks.router import cpu_seconds, request
from benchmarks.streams import run
from benchmarks.vocabulary import make_tokenizer
from peregrine_kernels.aot.shapes import SHAPES, Shape

FILE = RESULTS / "gpu-serve.json"
STREAMS = (1, 8, 64, 256)
TOKENS = 512
ROUNDS = 3
WARM_UP_SECONDS = 3.0
"""Seconds of load before a measurement. A GPU that has just started is faster than it stays: an H200 takes 6.3 ms for
256 decodes at first, then 7.2."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One load: a number of simultaneous streams, of TOKENS tokens each."""

    overlaps: bool
    """Whether the server runs the overlapped loop."""
    streams: int
    tokens_per_second: float
    """Tokens a second while all streams run."""
    bare_tokens_per_second: float
    """Tokens a second of the bare graph, at the streams' mean context."""
    router_busy: float
    shard_busy: float
    """CPU time over wall time of each process."""
    client_busy: float
    failed: int

    @property
    def ratio(self) -> float:
        return self.tokens_per_second / self.bare_tokens_per_second


def main() -> None:
    """Measures, prints, saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="falcon-7b", choices=[shape.name for shape in SHAPES])
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--path", type=Path, default=ROOT / ".bench", help="where the model is kept")
    parser.add_argument("--save", action="store_true", help=f"write {FILE.relative_to(ROOT)}")
    options = parser.parse_args()
    device = this_device()
    (shape,) = (shape for shape in SHAPES if shape.name == options.model)
    path = options.path / shape.name
    config = {**CONFIG, **hf_config(shape)}
    make_checkpoint(path, config, CUDA)
    make_tokenizer(path, shape.vocab_size, int(str(CONFIG["eos_token_id"])))
    bare = bare_seconds(shape, options.streams)
    with serving(path, max(options.streams), True) as ours, serving(path, max(options.streams), False) as plain:
        for server in (ours, plain):
            run(server.port, request(TOKENS), max(options.streams), TOKENS)
        turns = [
            take_turn(server, count, bare[count])
            for _ in range(options.rounds)
            for count in options.streams
            for server in (ours, plain)
        ]
    if options.save:
        data = {"device": device.name, "model": shape.name, "machine": machine(), "turns": [*map(asdict, turns)]}
        write_json(FILE, data)


def bare_seconds(shape: Shape, streams: list[int]) -> dict[int, float]:
    """Number of streams -> seconds of a bare step at their mean context."""
    model = random_falcon(shape)
    found = {}
    for count in streams:
        step = decode_step(model, Work(count, 1, TOKENS // 2), MAX_TOTAL_TOKENS)
        warm_up(step)
        found[count] = seconds(step)
        print(f"{count:4} decodes as a bare graph: {found[count] * 1e3:.3f} ms", flush=True)
    del model
    torch.cuda.empty_cache()
    return found


def warm_up(step: Callable[[], object]) -> None:
    """Runs steps for about as long as a load takes."""
    end = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < end:
        step()
        torch.cuda.synchronize()


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that is ready."""

    overlaps: bool
    port: int
    router: psutil.Process
    shard: psutil.Process


@contextmanager
def serving(path: Path, max_streams: int, overlaps: bool) -> Iterator[Serving]:
    """Runs a server as a user starts it, until the block ends."""
    settings = {"OVERLAP": str(overlaps).lower(), "MAX_CONCURRENT_REQUESTS": str(max_streams)}
    peer = peregrine(path, "bf16", settings, kv_tokens=max_streams * MAX_TOTAL_TOKENS)
    peer.start(Path(tempfile.mkdtemp(prefix="peregrine-gpu-serve-")))
    try:
        router = max(psutil.Process().children(), key=lambda process: process.create_time())
        shard = max(router.children(), key=lambda process: process.memory_info().rss)
        yield Serving(overlaps, int(peer.url.rpartition(":")[2]), router, shard)
    finally:
        peer.stop()


def take_turn(server: Serving, count: int, bare: float) -> Turn:
    """Runs one load and measures it."""
    processes = server.router, server.shard
    before = [*map(cpu_seconds, processes)]
    load = run(server.port, request(TOKENS), count, TOKENS)
    router_busy, shard_busy = (
        (cpu_seconds(process) - start) / load.seconds for process, start in zip(processes, before, strict=True)
    )
    turn = Turn(
        server.overlaps,
        count,
        load.steady_rate,
        count / bare,
        router_busy,
        shard_busy,
        load.client_busy,
        load.num_failed,
    )
    print(json.dumps({**asdict(turn), "ratio": round(turn.ratio, 3)}), flush=True)
    return turn


if __name__ == "__main__":
    main()
