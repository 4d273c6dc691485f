"""Scheduler and runner together against transformers: ragged requests that join, leave and are preempted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import FalconForCausalLM

from checkpoints import VARIANTS, build_model, write_checkpoint
from peregrine_router.blocks import BlockPool
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduler import Scheduler, Sequence
from peregrine_server.protocol import ShardConfig, StepResult, decode_to_shard, encode, unpack_floats
from peregrine_server.runner import Runner

BLOCK_SIZE = 8
MAX_TOKENS = 96
GREEDY = SamplingParams()


class Shard:
    """A checkpoint of one variant in a runner, and transformers' model of the same weights."""

    def __init__(self, variant: str, path: Path) -> None:
        self.oracle: FalconForCausalLM = build_model(variant)
        write_checkpoint(path, self.oracle)
        config = ShardConfig(
            rank=0,
            num_shards=1,
            socket_path="",
            model_path=str(path),
            device="cpu",
            dtype="float32",
            rendezvous="",
            num_threads=1,
            max_batch_size=16,
            max_total_tokens=MAX_TOKENS,
            max_batch_total_tokens=16 * MAX_TOKENS,
            block_size=BLOCK_SIZE,
        )
        self.runner = Runner.load(config, lambda _done, _total: None)

    def scheduler(self, num_blocks: int = 192, max_step_tokens: int = 16) -> Scheduler:
        pool = BlockPool(num_blocks, BLOCK_SIZE)
        return Scheduler(pool, max_batch_size=16, max_step_tokens=max_step_tokens, eos_token_ids=frozenset())

    def step(self, scheduler: Scheduler) -> StepResult | None:
        step = scheduler.schedule()
        if step is None:
            return None
        result = self.runner.execute(decode_to_shard(encode(step)))  # type: ignore[arg-type]
        scheduler.commit(result)
        return result

    @torch.inference_mode()
    def continuation(self, prompt: tuple[int, ...], count: int) -> list[int]:
        ids = self.oracle.generate(
            torch.tensor([prompt]), max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None
        )
        return list(ids[0, len(prompt) :].tolist())


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shard]:
    shards: dict[str, Shard] = {}

    def get(variant: str) -> Shard:
        if variant not in shards:
            shards[variant] = Shard(variant, tmp_path_factory.mktemp(variant))
        return shards[variant]

    return get


def ragged_requests(sampling: SamplingParams = GREEDY) -> list[Request]:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 50, (16,), generator=generator).tolist()
    news = torch.randint(2, 24, (16,), generator=generator).tolist()
    prompts = [tuple(torch.randint(257, (length,), generator=generator).tolist()) for length in lengths]
    return [Request(str(i), p, sampling, n) for i, (p, n) in enumerate(zip(prompts, news, strict=True))]


def run(shard: Shard, scheduler: Scheduler, requests: list[Request], every: int = 3) -> list[Sequence]:
    """One more request joins after every `every` steps, while the others run."""
    sequences, pending, steps = [], list(requests), 0
    while True:
        if pending and steps % every == 0:
            sequences.append(scheduler.submit(pending.pop(0)))
        if shard.step(scheduler) is None and not pending:
            return sequences
        scheduler.check_integrity()
        steps += 1


def generated(sequence: Sequence) -> list[int]:
    return sequence.token_ids[len(sequence.request.prompt_ids) :]


@pytest.mark.parametrize("variant", VARIANTS)
def test_sixteen_ragged_requests_join_and_leave(variant: str, shard: Callable[[str], Shard]) -> None:
    """Greedy tokens are transformers', whoever else is in the batch and however prompts are cut into chunks."""
    one = shard(variant)
    for sequence in run(one, one.scheduler(max_step_tokens=11), ragged_requests()):
        assert generated(sequence) == one.continuation(sequence.request.prompt_ids, sequence.request.max_new_tokens)


@pytest.mark.parametrize("variant", ["rw-1b", "7b", "40b"])
def test_preempted_requests_give_the_same_tokens(variant: str, shard: Callable[[str], Shard]) -> None:
    """With a cache for a fraction of the requests, recomputed ones continue as if nothing had happened."""
    one = shard(variant)
    scheduler = one.scheduler(num_blocks=14)
    sequences = run(one, scheduler, ragged_requests(), every=1)
    assert scheduler.num_preemptions > 0
    for sequence in sequences:
        assert generated(sequence) == one.continuation(sequence.request.prompt_ids, sequence.request.max_new_tokens)


def test_sampling_is_the_same_alone_in_a_batch_and_after_preemption(shard: Callable[[str], Shard]) -> None:
    """The same seed gives the same text in all three."""
    one = shard("7b")
    requests = ragged_requests(SamplingParams(do_sample=True, temperature=0.9, top_k=50, top_p=0.95, seed=77))
    crowd = run(one, one.scheduler(), requests)
    squeezed = one.scheduler(num_blocks=14)
    assert [generated(s) for s in run(one, squeezed, requests, every=1)] == [generated(s) for s in crowd]
    assert squeezed.num_preemptions > 0
    for sequence in crowd[:4]:
        (alone,) = run(one, one.scheduler(), [sequence.request])
        assert generated(alone) == generated(sequence)


def test_prompt_logprobs_are_those_of_transformers(shard: Callable[[str], Shard]) -> None:
    """Every prompt token but the first gets its log-probability, chunk by chunk; sampled tokens get theirs."""
    one = shard("7b")
    prompt = ragged_requests()[3].prompt_ids
    scheduler = one.scheduler(max_step_tokens=7)
    scheduler.submit(Request("a", prompt, SamplingParams(prompt_logprobs=True, logprobs=True), 1))
    got = {}
    while (result := one.step(scheduler)) is not None:
        for chunk in result.prompt_logprobs:
            got.update(enumerate(unpack_floats(chunk.logprobs).tolist(), chunk.start))
        last = result
    with torch.inference_mode():
        want = one.oracle(torch.tensor([prompt])).logits[0].log_softmax(-1)
    assert sorted(got) == list(range(1, len(prompt)))
    for position, logprob in got.items():
        assert logprob == pytest.approx(want[position - 1, prompt[position]].item(), abs=1e-4)
    assert unpack_floats(last.logprobs)[0] == pytest.approx(want[-1].max().item(), abs=1e-4)
