"""A runner computes the same on top of cached prefixes as without them."""

import pytest
import torch
from msgspec.structs import replace

from checkpoints import build_model, write_checkpoint
from fake_shards import submit
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import unpack_floats
from runners import BLOCK_SIZE, generated, load_runner, make_scheduler, run, run_step

pytestmark = pytest.mark.slow

SAMPLED = SamplingParams(do_sample=True, temperature=0.9, top_k=50, seed=77)


@pytest.fixture(scope="module", params=["rw-1b", "7b", "40b"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    path = tmp_path_factory.mktemp(request.param)
    write_checkpoint(path, build_model(request.param))
    return load_runner(path)


def random_tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(257, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def ragged_requests() -> list[Request]:
    """Sixteen, in three families of a common beginning each; every other one samples."""
    families = [random_tokens(length, seed) for seed, length in enumerate((BLOCK_SIZE, 21, 40))]
    return [
        Request(
            str(i),
            families[i % 3] + random_tokens(1 + i * 7 % 19, 100 + i),
            replace(SAMPLED, seed=i) if i % 2 else SamplingParams(),
            3 + i * 5 % 17,
        )
        for i in range(16)
    ]


def chat(runner: Runner, scheduler: Scheduler, seed: int) -> list[list[int]]:
    """Four turns, each of which has all before it in its prompt."""
    history: tuple[int, ...] = ()
    answers = []
    for turn in range(4):
        history += random_tokens(5 + turn, seed + turn)
        request = Request(f"{seed}-{turn}", history, replace(SAMPLED, seed=seed), 11)
        (sequence,) = run(runner, scheduler, [request])
        answers.append(generated(sequence))
        history += tuple(answers[-1])
    return answers


@pytest.mark.parametrize("num_blocks", [192, 16])
def test_shared_prefixes_change_no_token(num_blocks: int, runner: Runner) -> None:
    """Ragged requests that join one by one get the same tokens with the cache and without, preempted or not."""
    cached = make_scheduler(num_blocks)
    plain = make_scheduler(num_blocks, caches_prefixes=False)
    texts = [[generated(s) for s in run(runner, each, ragged_requests(), every=2)] for each in (cached, plain)]
    assert texts[0] == texts[1]
    assert cached.prefixes.num_cached_tokens > plain.prefixes.num_cached_tokens == 0
    assert (cached.num_preemptions > 0) == (num_blocks == 16)


def test_a_prefix_that_is_computed_in_the_same_step_changes_no_token(runner: Runner) -> None:
    """Whoever begins in the step that computes its prefix for another reads K and V that this step writes."""
    prefix = random_tokens(40, 3)
    requests = [Request(str(i), prefix + random_tokens(1 + i, i), SamplingParams(), 6) for i in range(4)]
    cached, plain = (make_scheduler(max_step_tokens=256, caches_prefixes=caches) for caches in (True, False))
    texts = [[generated(s) for s in run(runner, each, requests)] for each in (cached, plain)]
    assert texts[0] == texts[1]
    assert cached.prefixes.num_cached_tokens == 3 * 40


def test_chats_change_no_token(runner: Runner) -> None:
    """Nor do conversations whose every turn begins with all turns before, generated tokens included."""
    cached = make_scheduler()
    assert chat(runner, cached, 7) == chat(runner, make_scheduler(caches_prefixes=False), 7)
    lengths = [5, 5 + 11 + 6, 5 + 11 + 6 + 11 + 7]
    # The last token of an answer is sampled but never computed.
    known = [(length + 11 - 1) // BLOCK_SIZE * BLOCK_SIZE for length in lengths]
    assert cached.prefixes.num_cached_tokens == sum(known)


def test_prompt_logprobs_are_computed_in_full(runner: Runner) -> None:
    """A prompt whose every token is to be scored takes nothing from the cache."""
    prompt = random_tokens(30, 5)
    scheduler = make_scheduler()
    run(runner, scheduler, [Request("a", prompt, SamplingParams(), 2)])
    submit(scheduler, Request("b", prompt, SamplingParams(prompt_logprobs=True), 2))
    scored = 0
    while (result := run_step(runner, scheduler)) is not None:
        scored += sum(len(unpack_floats(chunk.logprobs)) for chunk in result.prompt_logprobs)
    assert scored == len(prompt) - 1
