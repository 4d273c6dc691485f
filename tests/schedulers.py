"""Schedulers for tests, and the steps that drive them on a fake model."""

from fake_shards import FakeModel
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_limits import MIN_CHUNK, StepBudget
from peregrine_server.protocol import Step

NUM_BLOCKS = 12


BLOCK_SIZE = 4


def make_request(
    name: str, prompt: list[int], max_new_tokens: int, seed: int = 0, salt: bytes = b"", tenant: str = ""
) -> Request:
    return Request(name, tuple(prompt), SamplingParams(seed=seed), max_new_tokens, tenant=tenant, cache_salt=salt)


def make_group(prompt: list[int], max_new_tokens: list[int], salt: bytes = b"") -> list[Request]:
    """Requests of one prompt, each with its own seed."""
    return [make_request(f"{prompt}-{i}", prompt, new, seed=i, salt=salt) for i, new in enumerate(max_new_tokens)]


def make_scheduler(
    num_blocks: int = NUM_BLOCKS,
    max_batch_size: int = 8,
    max_step_tokens: int = 16,
    eos: frozenset[int] = frozenset(),
    speculation: DraftBudget | None = None,
    min_chunk: int = MIN_CHUNK,
    can_fork: bool = True,
) -> Scheduler:
    pool = BlockPool(num_blocks, BLOCK_SIZE, tenant_fraction=0.5)
    return Scheduler(
        pool,
        FairPolicy(max_batch_size, lead=max_step_tokens, min_chunk=min_chunk),
        max_batch_size=max_batch_size,
        max_step_tokens=max_step_tokens,
        eos_token_ids=eos,
        speculation=speculation,
        can_fork=can_fork,
    )


def run_step(scheduler: Scheduler, model: FakeModel, max_mixed_tokens: int | None = None) -> Step | None:
    most = scheduler.max_step_tokens
    step = scheduler.schedule(StepBudget(most, max_mixed_tokens or most))
    if step is not None:
        scheduler.commit(model.execute(step))
    return step


def run_to_end(scheduler: Scheduler, model: FakeModel) -> None:
    for _ in range(10_000):
        if run_step(scheduler, model) is None:
            return
        scheduler.check_integrity()
    raise AssertionError("it never ends")


def generated(sequence: Sequence) -> list[int]:
    return sequence.token_ids[len(sequence.request.prompt_ids) :]
