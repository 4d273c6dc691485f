"""`make bench-7b`: Falcon-7B's shape, loaded and served by whole servers on this machine's CPU, in three formats.

Formats take turns. Each is started once with the files' pages dropped, for the load and for its tokens, and once with
them in memory. Beside the loads stand reading alone and packing alone, of which the longer is a load's lower bound;
beside the tokens stands the memory's bandwidth. To be run on a machine with nothing else to do.
"""

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.falcon_7b import make_falcon_7b
from benchmarks.load.client import Answer
from benchmarks.load.workload import FIRST_ID, Session, Turn
from benchmarks.machine import RESULTS, ROOT, instruction_set, machine, write_json
from benchmarks.peak import MEMORY_BYTES, Memory
from benchmarks.peers.http import HttpPeer
from benchmarks.peers.peregrine import Weights, peregrine
from peregrine_kernels import Backend, backend_for
from peregrine_router.shards.shard_process import SHARD_ENVIRONMENT
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import footprint, linears
from peregrine_server.models.formats.interface import CPU_KERNELS, WeightFormat
from peregrine_server.models.formats.quantized import QuantizedFormat
from peregrine_server.models.formats.registry import weight_format
from peregrine_server.models.interface import Footprint, Layout
from peregrine_server.models.loading.read_ahead import ReadAhead

FILE = RESULTS / f"real-size-{instruction_set()}.json"
FORMATS: tuple[Weights, ...] = ("int4", "int8", "bf16")
STREAMS = (1, 8)
PROMPT, TOKENS = 16, 32
KV_TOKENS = 4096
PIECE_BYTES = 2**22
CPU = torch.device("cpu")
LOADED = re.compile(r"  loaded    (?P<gigabytes>\S+) GB in (?P<seconds>\S+) s")

Sample = dict[str, Any]
Result = TypeVar("Result")


def main() -> None:
    """Measures, prints, and saves the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path", type=Path, default=ROOT / ".bench" / "falcon-7b", help="where the model is kept")
    parser.add_argument("--save", action="store_true", help=f"add the rounds to {FILE.relative_to(ROOT)}")
    options = parser.parse_args()
    os.environ.update({**SHARD_ENVIRONMENT, **os.environ})
    config = make_falcon_7b(options.path)
    for _ in tqdm(range(options.rounds), desc="rounds", leave=False):
        for name in FORMATS:
            sample = measure(options.path, config, name)
            print(json.dumps(sample), flush=True)
            if options.save:
                save(sample)


def measure(path: Path, config: FalconConfig, name: Weights) -> Sample:
    """One turn of a format."""
    sample: Sample = {"format": name, "weight_bytes": size_of(config, name).weight_bytes}
    sample["pack_seconds"] = in_child(pack_alone, config, name)
    drop(path)
    sample["read_seconds"] = {"cold": in_child(read_alone, path)}
    drop(path)
    for pages in ("cold", "warm"):
        if pages == "warm":
            in_child(read_alone, path)
            sample["read_seconds"]["warm"] = in_child(read_alone, path)
        peer = peregrine(path, name, kv_tokens=KV_TOKENS)
        start, logs = time.perf_counter(), Path(tempfile.mkdtemp(prefix="peregrine-7b-"))
        peer.start(logs)
        try:
            sample[pages] = {**loaded(peer, logs), "start_seconds": time.perf_counter() - start}
            if pages == "cold":
                sample["tokens"] = [tokens(peer, config, name, streams) for streams in STREAMS]
        finally:
            peer.stop()
    return sample


def loaded(peer: HttpPeer, logs: Path) -> Sample:
    """The server's own figures of its load, and the peak of its shard's memory until now."""
    [log] = logs.iterdir()
    found = LOADED.search(log.read_text())
    assert found is not None, log
    figures = {kind: float(text.replace(",", "")) for kind, text in found.groupdict().items()}
    return {**figures, "peak_bytes": peak_bytes(peer.children("peregrine_server.worker")[0])}


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def size_of(config: FalconConfig, name: str) -> Footprint:
    """Bytes of the model."""
    format = weight_format(None if name == "bf16" else name, CPU_KERNELS)
    return footprint(
        config, Layout(num_ranks=1, dtype="bfloat16", format=format, packs_weights=True, concatenates=False)
    )


def tokens(peer: HttpPeer, config: FalconConfig, name: str, streams: int) -> Sample:
    """Tokens a second of some streams, and the part of the memory's bandwidth that reading the weights takes."""
    bandwidth = [MEMORY_BYTES / in_child(memory_seconds)]
    prompts = [tuple(random.randrange(FIRST_ID, config.vocab_size) for _ in range(PROMPT)) for _ in range(streams)]
    answers = peer.run([Session(0.0, (Turn(prompt, TOKENS),)) for prompt in prompts])
    assert all(len(answer.token_times) == TOKENS for answer in answers), answers
    bandwidth.append(MEMORY_BYTES / in_child(memory_seconds))
    step = statistics.median(steady_gaps(answers))
    roof = statistics.fmean(bandwidth)
    size = size_of(config, name)
    share = (size.weight_bytes - size.unread_bytes) / step / roof
    return {"streams": streams, "tokens_per_second": streams / step, "bandwidth": roof, "share": share}


def steady_gaps(answers: list[Answer]) -> list[float]:
    """Seconds between tokens once all streams have one: before, steps also compute prompts."""
    began = max(answer.token_times[0] for answer in answers)
    steady = [[at for at in answer.token_times if at >= began] for answer in answers]
    return [later - earlier for times in steady for earlier, later in pairwise(times)]


def memory_seconds() -> float:
    """Seconds of reading MEMORY_BYTES."""
    return Memory().seconds()


def read_alone(path: Path) -> float:
    """Seconds of reading all files on the loader's threads, and keeping nothing."""
    files = [(file, at) for file in sorted(path.glob("*.safetensors")) for at in range(0, file.stat().st_size, 2**28)]
    start = time.perf_counter()
    ReadAhead(CPU).load(read_part, files)
    return time.perf_counter() - start


def read_part(part: tuple[Path, int]) -> None:
    """Reads 256 MiB of a file."""
    path, start = part
    piece = memoryview(bytearray(PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), start, 2**28, os.POSIX_FADV_WILLNEED)
        for at in range(start, start + 2**28, PIECE_BYTES):
            os.preadv(file.fileno(), [piece], at)


def pack_alone(config: FalconConfig, name: str) -> float:
    """Seconds of rounding and packing all weights of the model, those of a layer again and again."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    backend = backend_for(CPU)
    format = weight_format(None if name == "bf16" else name, backend)
    *layers, head = (shape for _, shape in linears(config, 1))
    tables = {shape: torch.randn(shape).mul_(0.02).bfloat16() for shape in {*layers, head}}
    seconds = {shape: packed_in(tables[shape], format, backend, is_head=shape == head) for shape in tables}
    return sum(seconds[shape] for shape in (*layers, head))


def packed_in(table: Tensor, format: WeightFormat, backend: Backend, *, is_head: bool) -> float:
    """The median of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        if is_head or not isinstance(format, QuantizedFormat):
            weight = format.from_dense(table)
        else:
            weight = format.rounded(table, format.stored(table.shape[1]))
        backend.linear(weight)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def drop(path: Path) -> None:
    """Writes back the files' pages and drops them from memory."""
    for file in path.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_child(call: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a call in a process of its own, which ends: its memory is for the servers."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def save(sample: Sample) -> None:
    """Adds a turn to those of the same commit."""
    here = machine()
    data = json.loads(FILE.read_text()) if FILE.exists() else {}
    if data.get("machine") != here:
        data = {"machine": here, "samples": []}
    data["samples"].append(sample)
    write_json(FILE, data)


if __name__ == "__main__":
    main()
