"""Scheduler and runner together against transformers: ragged requests that join, leave and are preempted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from transformers import FalconForCausalLM

from checkpoints import VARIANTS, build_model, write_checkpoint
from fake_shards import submit
from peregrine_router.request import Request, SamplingParams
from peregrine_server.protocol import unpack, unpack_floats
from runners import generated, load_runner, make_scheduler, run, run_step

pytestmark = pytest.mark.slow

GREEDY = SamplingParams()
SAMPLED = SamplingParams(do_sample=True, temperature=0.9, top_k=50, top_p=0.95, seed=77)


class Shard:
    """A checkpoint of one variant in a runner, and transformers' model of the same weights."""

    def __init__(self, variant: str, path: Path) -> None:
        self.oracle: FalconForCausalLM = build_model(variant)
        write_checkpoint(path, self.oracle)
        self.runner = load_runner(path)

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


@pytest.mark.parametrize("variant", VARIANTS)
def test_sixteen_ragged_requests_join_and_leave(variant: str, shard: Callable[[str], Shard]) -> None:
    """Greedy tokens are transformers', whoever else is in the batch and however prompts are cut into chunks."""
    one = shard(variant)
    for sequence in run(one.runner, make_scheduler(max_step_tokens=11), ragged_requests(), every=3):
        assert generated(sequence) == one.continuation(sequence.request.prompt_ids, sequence.request.max_new_tokens)


@pytest.mark.parametrize("variant", ["rw-1b", "7b", "40b"])
def test_preempted_requests_give_the_same_tokens(variant: str, shard: Callable[[str], Shard]) -> None:
    """With a cache for a fraction of the requests, recomputed ones continue as if nothing had happened."""
    one = shard(variant)
    scheduler = make_scheduler(num_blocks=14)
    sequences = run(one.runner, scheduler, ragged_requests(), every=1)
    assert scheduler.num_preemptions > 0
    for sequence in sequences:
        assert generated(sequence) == one.continuation(sequence.request.prompt_ids, sequence.request.max_new_tokens)


@pytest.mark.parametrize("num_blocks", [192, 22])
@pytest.mark.parametrize("length", [1, 16, 21])
def test_forks_draw_what_independent_requests_draw(num_blocks: int, length: int, shard: Callable[[str], Shard]) -> None:
    """Six requests of one prompt, forked or each by itself: the same tokens, with and without preemption."""
    one = shard("7b")
    prompt = tuple(torch.randint(257, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    requests = [Request(str(i), prompt, replace(SAMPLED, seed=i), 40 + 4 * i) for i in range(6)]
    alone = [generated(run(one.runner, make_scheduler(), [request])[0]) for request in requests]
    scheduler = make_scheduler(num_blocks)
    group = scheduler.submit_group(requests)
    while run_step(one.runner, scheduler) is not None:
        scheduler.check_integrity()
    assert [generated(sequence) for sequence in group] == alone
    assert len({tuple(tokens) for tokens in alone}) == 6
    assert (scheduler.num_preemptions > 0) == (num_blocks == 22)


def test_prompt_logprobs_are_those_of_transformers(shard: Callable[[str], Shard]) -> None:
    """Every prompt token but the first gets its log-probability and the likeliest tokens, chunk by chunk; sampled
    tokens get theirs."""
    one = shard("7b")
    prompt = ragged_requests()[3].prompt_ids
    scheduler = make_scheduler(max_step_tokens=7)
    submit(scheduler, Request("a", prompt, SamplingParams(prompt_logprobs=True, logprobs=True, top_n_tokens=3), 1))
    got: dict[int, float] = {}
    top_ids: dict[int, list[int]] = {}
    while (result := run_step(one.runner, scheduler)) is not None:
        for chunk in result.prompt_logprobs:
            got.update(enumerate(unpack_floats(chunk.logprobs).tolist(), chunk.start))
            top_ids.update(enumerate(unpack(chunk.top_token_ids).reshape(-1, 3).tolist(), chunk.start))
            for chosen, best in zip(unpack_floats(chunk.logprobs), unpack_floats(chunk.top_logprobs)[::3], strict=True):
                assert chosen <= best
        last = result
    with torch.inference_mode():
        want = one.oracle(torch.tensor([prompt])).logits[0].log_softmax(-1)
    assert sorted(got) == sorted(top_ids) == list(range(1, len(prompt)))
    for position, logprob in got.items():
        assert logprob == pytest.approx(want[position - 1, prompt[position]].item(), abs=1e-4)
        assert top_ids[position] == want[position - 1].topk(3).indices.tolist()
    assert unpack_floats(last.logprobs)[0] == pytest.approx(want[-1].max().item(), abs=1e-4)
