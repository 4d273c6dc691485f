"""Answers of a shard that are damaged in every way: the router ends with one line, or goes on; no request hangs."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from engines import BLOCK_SIZE, read
from fake_shards import FakeModel, byte_tokenizer
from frames import SECONDS, Damage, damages, fuzz, memory
from peregrine_router.engine.engine import Engine
from peregrine_router.launch.serve import wait_ready
from peregrine_router.request import EngineDead, GenerationFailed, Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.shards import process_group
from peregrine_router.shards.process_group import ShardError, ShardGroup
from peregrine_router.shards.ready_check import check_ready
from peregrine_server.protocol import (
    CacheSpec,
    PromptLogprobs,
    Ready,
    Step,
    StepResult,
    TopTokens,
    decode_to_shard,
    encode,
    pack,
    unpack,
)
from runners import shard_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS + 300)]

VOCAB = 256
NUM_BLOCKS = 64
MAX_GROWTH_BYTES = 100 * 2**20
HANG_SECONDS = 10.0
REASONS = ("no", "no way")
"""Reasons in the `Failed` of `frames.MESSAGES`."""


class DamagedLink:
    """A link to a shard that answers as it should, but for one step."""

    def __init__(self, group: ShardGroup, at: int, damage: Damage) -> None:
        """`at`: the number of the step whose answer is damaged."""
        self._group = group
        self._model = FakeModel(NUM_BLOCKS, BLOCK_SIZE)
        self._at = at
        self._damage = damage

    def send(self, data: bytes) -> bool:
        """Answers a step."""
        step = decode_to_shard(data)
        assert isinstance(step, Step)
        frame = encode(self._scored(step, self._model.execute(step)))
        frames = self._damage(frame) if self._at == 0 else [frame]
        self._at -= 1
        for each in frames:
            asyncio.get_running_loop().call_soon(self._group._deliver, 0, each)
        return True

    def close(self) -> None:
        """Closes nothing."""

    def _scored(self, step: Step, result: StepResult) -> StepResult:
        """The result with two likeliest tokens of its first row, and scores of new prompts."""
        two = pack([1, 2]), np.zeros(2, "<f4").tobytes()
        top = [TopTokens(0, *two)] if result.slots else []
        scores = [
            PromptLogprobs(slot, 1, np.zeros(1, "<f4").tobytes(), *two)
            for slot in unpack(step.slots).tolist()
            if slot in {new.slot for new in step.new if new.prompt_length > 1}
        ]
        return replace(result, top_tokens=top, prompt_logprobs=scores)


def make_engine(group: ShardGroup) -> Engine:
    scheduler = Scheduler(
        BlockPool(NUM_BLOCKS, BLOCK_SIZE),
        FairPolicy(8, lead=16),
        max_batch_size=8,
        max_step_tokens=16,
        eos_token_ids=frozenset(),
        speculation=DraftBudget(2, 8),
    )
    return Engine(group, scheduler, byte_tokenizer(), vocab_size=VOCAB, step_timeout=3.0)


def make_requests() -> list[Request]:
    scored = SamplingParams(logprobs=True, prompt_logprobs=True, top_n_tokens=2)
    return [
        Request("a", (1, 2, 3), scored, 6),
        Request("b", (4,), SamplingParams(), 9),
        Request("c", (5, 6), scored, 4),
    ]


async def serve_damaged(folder: Path, at: int, damage: Damage) -> None:
    """Each of three requests ends, with its tokens or an error, and the engine with one line or not at all."""
    group = ShardGroup(folder)
    group._links.append(DamagedLink(group, at, damage))  # type: ignore[arg-type]
    await group.wait_ready()
    engine = make_engine(group)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    running = asyncio.create_task(engine.run())
    streams = engine.submit_group(make_requests())
    async with asyncio.timeout(HANG_SECONDS):
        ends = await asyncio.gather(*map(read, streams), return_exceptions=True)
    assert group._inbox.qsize() <= process_group.MAX_UNREAD + 1
    if running.done() or any(isinstance(end, EngineDead) for end in ends):
        (error,) = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(error, ShardError | ValueError | RuntimeError), repr(error)
        assert str(error).startswith(("shard ", "the shards ", *REASONS)), repr(error)
        assert "\n" not in str(error)
        assert not engine.is_healthy
    else:
        assert all(isinstance(end, list | GenerationFailed) for end in ends), ends
        assert engine.stats.kv_blocks_used == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await group.stop()
    assert not faults, faults


def test_no_answer_hangs_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged answer ends the router with one line, or changes nothing but tokens; it takes no memory."""
    monkeypatch.setattr(process_group, "FAILED_SECONDS", 0.0)

    def check(example: tuple[int, Damage]) -> None:
        asyncio.run(serve_damaged(tmp_path / "group", *example))

    check((0, lambda frame: [frame]))
    before = memory()
    count = fuzz(st.tuples(st.integers(0, 6), damages), check)
    print(f"{count} damaged answers, memory +{(memory() - before) / 2**20:.0f} MB")
    assert memory() - before < MAX_GROWTH_BYTES


def test_no_report_of_a_loading_shard_hangs_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with one line, or it is that of a shard that could be."""
    monkeypatch.setattr(process_group, "FAILED_SECONDS", 0.0)
    config = shard_config(tmp_path)
    ready = encode(Ready(0, "cpu", "float32", 1000, 192, config.block_size, CacheSpec(64), "AMX"))

    async def start(damage: Damage) -> str:
        """Why the start ends; empty if it goes on."""
        group = ShardGroup(tmp_path / "group")
        group._shards.append(SimpleNamespace(signs=SimpleNamespace(is_loading=True)))  # type: ignore[arg-type]
        for each in (*damage(ready), ready):
            group._deliver(0, each)
        try:
            async with asyncio.timeout(HANG_SECONDS):
                for report in await wait_ready(group):
                    check_ready(report, config)
        except (ShardError, ValueError) as error:
            return str(error)
        finally:
            group._shards.clear()
            await group.stop()
        return ""

    def check(damage: Damage) -> None:
        reason = asyncio.run(start(damage))
        assert not reason or reason.startswith(("shard 0", *REASONS)), reason
        assert "\n" not in reason

    count = fuzz(damages, check)
    print(f"{count} damaged reports")
