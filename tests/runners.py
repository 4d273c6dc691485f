"""Runners driven by schedulers in this process: a server without sockets."""

from pathlib import Path
from typing import Any

from fake_shards import submit
from peregrine_router.request import Request
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import ShardConfig, Step, StepResult, decode_to_shard, encode

BLOCK_SIZE = 8


def shard_config(path: Path, **changes: Any) -> ShardConfig:
    """One rank in float32 on one thread, with 192 blocks for 16 sequences of 96 tokens except for `changes`."""
    settings: dict[str, Any] = {
        "rank": 0,
        "num_shards": 1,
        "socket_path": "",
        "model_path": str(path),
        "device": "cpu",
        "dtype": "float32",
        "rendezvous": "",
        "num_threads": 1,
        "max_batch_size": 16,
        "max_total_tokens": 96,
        "max_batch_total_tokens": 192 * BLOCK_SIZE,
        "block_size": BLOCK_SIZE,
    }
    return ShardConfig(**{**settings, **changes})


def load_runner(path: Path, **changes: Any) -> Runner:
    """Loads a runner with `shard_config(path, **changes)`."""
    return Runner.load(shard_config(path, **changes), lambda _done, _total: None)


def make_scheduler(
    num_blocks: int = 192,
    max_step_tokens: int = 16,
    max_batch_size: int = 16,
    eos: frozenset[int] = frozenset(),
    *,
    caches_prefixes: bool = True,
    speculation: DraftBudget | None = None,
) -> Scheduler:
    """A scheduler for a runner with at least `num_blocks` blocks."""
    return Scheduler(
        BlockPool(num_blocks, BLOCK_SIZE),
        FairPolicy(max_batch_size, lead=max_step_tokens),
        max_batch_size=max_batch_size,
        max_step_tokens=max_step_tokens,
        eos_token_ids=eos,
        caches_prefixes=caches_prefixes,
        speculation=speculation,
    )


def free_draft_budget(max_draft_tokens: int, max_rows: int) -> DraftBudget:
    """A budget whose measured steps took no longer with draft tokens, so that every match is proposed in full."""
    budget = DraftBudget(max_draft_tokens, max_rows)
    for num_decodes in range(1, max_rows + 1):
        for num_draft_tokens in [0, *(1, 8) * 40]:
            budget.cost.observe(num_decodes, num_draft_tokens, 1.0)
    return budget


def run_step(runner: Runner, scheduler: Scheduler) -> StepResult | None:
    """One step, its messages encoded and decoded as on the wire; None if there was nothing to do."""
    if (step := scheduler.schedule()) is None:
        return None
    decoded = decode_to_shard(encode(step))
    assert isinstance(decoded, Step)
    result = runner.execute(decoded)
    scheduler.commit(result)
    return result


def run(runner: Runner, scheduler: Scheduler, requests: list[Request], every: int = 0) -> list[Sequence]:
    """Runs requests until all have finished. All join at the start, or one after every `every` steps."""
    sequences: list[Sequence] = []
    pending, steps = list(requests), 0
    while True:
        if pending and (every == 0 or steps % every == 0):
            joining = pending[: 1 if every else None]
            sequences += [submit(scheduler, request) for request in joining]
            pending = pending[len(joining) :]
        result = run_step(runner, scheduler)
        if result is None and not pending:
            return sequences
        assert result is None or not result.failed
        scheduler.check_integrity()
        steps += 1


def generated(sequence: Sequence) -> list[int]:
    """A sequence's tokens without its prompt's."""
    return sequence.token_ids[len(sequence.request.prompt_ids) :]
