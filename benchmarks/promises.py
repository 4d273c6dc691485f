"""`python -m benchmarks.promises`: how much clients of one server slow each other (1.15 B Falcon, bfloat16, CPU).

Each promise is measured against the same server without the other clients, in the same round, with prompts that no
earlier round has used. To be run on a machine with nothing else to do.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.checkpoint import CONFIG, make_checkpoint
from benchmarks.load.client import Answer, OpenAI, ask
from benchmarks.load.report import first_token_seconds, gaps
from benchmarks.load.workload import FIRST_ID, Turn
from benchmarks.machine import RESULTS, ROOT, instruction_set, machine, write_json
from benchmarks.peers.peregrine import peregrine
from benchmarks.scenarios import VOCAB_SIZE
from benchmarks.vocabulary import make_tokenizer
from peregrine_router.options.batching import STEP_TOKENS

FILE = RESULTS / f"promises-{instruction_set()}.json"
PREFIX, OWN, NUM_LATER = 512, 16, 15
STREAMS, STREAM_PROMPT, STREAM_TOKENS, LONG_PROMPT = 16, 32, 220, 2000
FLOOD, FLOOD_PROMPT, FLOOD_TOKENS, NUM_ASKED, ASKED_PROMPT = 200, 64, 64, 7, 256
SETTLE_SECONDS = 2.0
"""Seconds after which a flood counts as under way."""
STREAM_SETTLE_SECONDS = 6.0
"""Seconds before the long prompt is sent: by then all streams have tokens, and none ends before it is computed."""


class Clients:
    """Clients of one server: two API keys, and a source of prompts."""

    def __init__(self, noisy: aiohttp.ClientSession, quiet: aiohttp.ClientSession, seed: int) -> None:
        self.noisy = noisy
        self.quiet = quiet
        self.random = random.Random(seed)
        self._api = OpenAI("falcon")

    def ids(self, count: int) -> tuple[int, ...]:
        """A new prompt of random token ids."""
        return tuple(self.random.randrange(FIRST_ID, VOCAB_SIZE) for _ in range(count))

    async def ask(self, http: aiohttp.ClientSession, prompt: tuple[int, ...], count: int = 1) -> Answer:
        """Sends one request for `count` tokens."""
        return await ask(http, self._api, prompt, Turn(prompt, count))

    async def first_token(self, prompt: tuple[int, ...]) -> float:
        """Seconds until the quiet client's first token. Raises RuntimeError if it never comes."""
        answer = await self.ask(self.quiet, prompt)
        if answer.error or not answer.token_times:
            raise RuntimeError(f"no token: {answer.error}")
        return first_token_seconds(answer)


Sample = dict[str, float]


async def shared_prefix(clients: Clients) -> Sample:
    """Requests with a shared prefix: the first computes it; the others follow one by one."""
    prefix = clients.ids(PREFIX)
    first = await clients.first_token(prefix + clients.ids(OWN))
    later = [await clients.first_token(prefix + clients.ids(OWN)) for _ in range(NUM_LATER)]
    return {"first": first, "later": statistics.median(later), "ratio": first / statistics.median(later)}


async def long_prefill(clients: Clients) -> Sample:
    """A long prompt among decoding streams. A chunk's time is the prompt's time alone over its number of chunks."""
    alone = await clients.first_token(clients.ids(LONG_PROMPT))
    # The streams' own prompts are a quarter of its tokens, beside the first of their answers.
    settle = max(STREAM_SETTLE_SECONDS, 0.4 * alone)
    without, _ = await _streams(clients, 0, settle)
    beside, _ = await _streams(clients, LONG_PROMPT, settle)
    chunk = alone / (LONG_PROMPT / STEP_TOKENS["cpu"])
    return {"without": without, "beside": beside, "chunk": chunk, "ratio": (beside - without) / chunk}


async def _streams(clients: Clients, length: int, settle: float) -> tuple[float, float]:
    """The streams' 99th percentile between tokens, and the time to first token of a prompt of `length`, if any."""
    prompts = [clients.ids(STREAM_PROMPT) for _ in range(STREAMS)]
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(clients.ask(clients.noisy, prompt, STREAM_TOKENS)) for prompt in prompts]
        await asyncio.sleep(settle)
        came = time.perf_counter()
        seconds = await clients.first_token(clients.ids(length)) if length else 0.0
    answers = [stream.result() for stream in streams]
    if any(len(answer.token_times) < STREAM_TOKENS for answer in answers):
        raise RuntimeError(f"a stream broke off: {next(a.error for a in answers if a.error)}")
    # The streams' own prompts are computed beside the first of their tokens.
    began = max(answer.token_times[0] for answer in answers)
    if began > came or came + seconds > min(answer.token_times[-1] for answer in answers):
        raise RuntimeError("the long prompt was not computed while all streams ran: make them longer")
    for answer in answers:
        answer.token_times = [at for at in answer.token_times if at >= began]
    return float(np.percentile(gaps(answers), 99)), seconds


async def noisy_tenant(clients: Clients) -> Sample:
    """One key sends many requests at once, while another sends one now and then."""
    alone = await _now_and_then(clients)
    flood = [
        asyncio.create_task(clients.ask(clients.noisy, clients.ids(FLOOD_PROMPT), FLOOD_TOKENS)) for _ in range(FLOOD)
    ]
    await asyncio.sleep(SETTLE_SECONDS)
    flooded = await _now_and_then(clients)
    is_over = all(task.done() for task in flood)
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    if is_over:
        raise RuntimeError("the flood was over before it was measured: make it longer")
    await asyncio.sleep(SETTLE_SECONDS)
    return {"alone": alone, "flooded": flooded, "ratio": flooded / alone}


async def _now_and_then(clients: Clients) -> float:
    """Sends requests now and then; their median time to first token."""
    seconds = []
    for _ in range(NUM_ASKED):
        await asyncio.sleep(clients.random.uniform(0.0, 1.0))
        seconds.append(await clients.first_token(clients.ids(ASKED_PROMPT)))
    return statistics.median(seconds)


@dataclass(frozen=True, slots=True)
class Promise:
    """A measured ratio and its bar."""

    name: str
    claim: str
    bar: float
    is_least: bool
    """Whether the ratio must be at least the bar, rather than below it."""
    measure: Callable[[Clients], Awaitable[Sample]]


PROMISES = (
    Promise(
        "prefix",
        f"{NUM_LATER + 1} requests of one {PREFIX}-token prefix: the first's time to its first token / the later ones'",
        8.0,
        True,
        shared_prefix,
    ),
    Promise(
        "prefill",
        f"a prompt of {LONG_PROMPT} tokens among {STREAMS} streams: rise of their p99 between tokens / a chunk's time",
        1.0,
        False,
        long_prefill,
    ),
    Promise(
        "tenant",
        f"{FLOOD} requests of one key at once: another key's time to first token / the same alone",
        2.0,
        False,
        noisy_tenant,
    ),
)


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, and saves the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [promise.name for promise in PROMISES]
    parser.add_argument("--promises", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path", type=Path, default=ROOT / ".bench" / "falcon-1b", help="where the model is kept")
    parser.add_argument("--save", action="store_true", help=f"write {FILE.relative_to(ROOT)}")
    options = parser.parse_args(argv)
    make_checkpoint(options.path)
    make_tokenizer(options.path, VOCAB_SIZE, int(str(CONFIG["eos_token_id"])))
    server = peregrine(options.path, "bf16", {"API_KEY": "noisy,quiet"})
    server.start(Path(tempfile.mkdtemp(prefix="peregrine-promises-")))
    try:
        promises = [promise for promise in PROMISES if promise.name in options.promises]
        samples = asyncio.run(measure(server.url, promises, options.rounds))
    finally:
        server.stop()
    entries = [_entry(promise, samples[promise.name]) for promise in promises]
    print(*(f"{each['claim']}: {each['ratios']} (bar {each['bar']})" for each in entries), sep="\n")
    if options.save:
        save(entries)


async def measure(url: str, promises: list[Promise], rounds: int) -> dict[str, list[Sample]]:
    """Measures every promise once a round, after a warm-up round."""
    samples: dict[str, list[Sample]] = {promise.name: [] for promise in promises}
    async with AsyncExitStack() as stack:
        noisy, quiet = [await stack.enter_async_context(_session(url, key)) for key in ("noisy", "quiet")]
        clients = Clients(noisy, quiet, seed=6)
        await clients.first_token(clients.ids(STEP_TOKENS["cpu"]))
        for _ in range(rounds):
            for promise in promises:
                samples[promise.name].append(await promise.measure(clients))
                print(promise.name, samples[promise.name][-1], flush=True)
    return samples


def _session(url: str, key: str) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(url, headers={"authorization": f"Bearer {key}"}, connector=connector)


def _entry(promise: Promise, samples: list[Sample]) -> dict[str, Any]:
    ratios = [sample["ratio"] for sample in samples]
    bar = f"at least {promise.bar:g}" if promise.is_least else f"below {promise.bar:g}"
    return {"name": promise.name, "claim": promise.claim, "bar": bar, "ratios": ratios, "samples": samples}


def save(entries: list[dict[str, Any]]) -> None:
    """Saves the entries; other promises keep their last data, each with its machine."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else []
    fresh = {entry["name"]: {**entry, "machine": machine()} for entry in entries}
    by_name = {entry["name"]: entry for entry in kept} | fresh
    write_json(FILE, [by_name[promise.name] for promise in PROMISES if promise.name in by_name])


if __name__ == "__main__":
    main()
