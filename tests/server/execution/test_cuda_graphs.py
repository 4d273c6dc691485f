"""Decode steps on fixed inputs, as CUDA graphs run them: recorded steps are run again, under Triton's interpreter."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from transformers import FalconForCausalLM

from checkpoints import build_model, write_checkpoint
from fake_shards import submit
from falcons import forward, load, model_context
from paged_cases import page_batch, slot_rows
from peregrine_kernels import PagedBatch
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.execution.cuda_graphs import DecodeGraphs, DecodeInputs, Replay, capture_sizes, no_capture
from peregrine_server.execution.runner import Runner
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.protocol import decode_to_shard, encode
from runners import free_draft_budget, generated, load_runner, make_scheduler, run, shard_config

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BLOCK_SIZE = 8
MAX_TOKENS = 64


@pytest.fixture(scope="module")
def oracle() -> FalconForCausalLM:
    return build_model("7b")


@pytest.fixture(scope="module")
def path(oracle: FalconForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("falcon"), oracle)


@pytest.fixture(scope="module")
def model(path: Path) -> Falcon:
    return load(path, model_context(torch.float32, TritonBackend()))


@pytest.mark.parametrize("largest", [1, 2, 3, 5, 8, 12, 16, 33, 64, 100, 128, 257, 512])
def test_the_ladder_reaches_every_batch_with_little_padding(largest: int) -> None:
    """Rungs rise from 1 to the largest batch, and none of 8 or more is padded by half of itself."""
    sizes = capture_sizes(largest)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] == largest
    for batch in range(8, largest + 1):
        assert next(size for size in sizes if size >= batch) < 1.5 * batch
    assert len(sizes) <= 2 * largest.bit_length()


def decodes(contexts: list[int]) -> tuple[torch.Tensor, PagedBatch]:
    batch, _ = page_batch([(1, context) for context in contexts], BLOCK_SIZE)
    return torch.randint(257, (len(contexts),)), batch


def test_inputs_hold_a_batch_and_padding() -> None:
    """After a larger batch, a smaller one leaves no trace of it in the rows that are read."""
    inputs = DecodeInputs.allocate(8, MAX_TOKENS, BLOCK_SIZE, CPU)
    for contexts in ([60, 3, 17, 8, 9], [5, 64], [1]):
        token_ids, batch = decodes(contexts)
        count, width = len(contexts), batch.block_tables.shape[1]
        inputs.fill(slot_rows(token_ids, batch, BLOCK_SIZE))
        for ours, theirs in (
            (inputs.token_ids, token_ids),
            (inputs.batch.positions, batch.positions),
            (inputs.batch.slot_mapping, batch.slot_mapping),
        ):
            assert torch.equal(ours[:count], theirs)
        is_block = torch.arange(width) * BLOCK_SIZE <= batch.positions[:, None]
        assert torch.equal(inputs.batch.block_tables[:count, :width][is_block], batch.block_tables[is_block])
        assert (inputs.batch.positions[count:] == -1).all()
        assert (inputs.batch.slot_mapping[count:] == -1).all()


def test_a_recorded_step_is_the_step_itself(model: Falcon) -> None:
    """Logits and pages of a padded batch are those of the batch alone, and no other block is touched."""
    steps: list[Replay] = []

    def record(step: Replay) -> Replay:
        steps.append(step)
        return no_capture(step)

    torch.manual_seed(0)
    kv = model.allocate_cache(64, BLOCK_SIZE)
    for pages in kv.layers:
        pages.normal_()
    graphs = DecodeGraphs(model, kv, capture_sizes(6), MAX_TOKENS, BLOCK_SIZE, record)
    assert len(steps) == len(capture_sizes(6))
    for contexts in ([40, 3, 17, 8, 9], [5, 64, 33], [1]):
        token_ids, batch = decodes(contexts)
        before = [pages.clone() for pages in kv.layers]
        recorded = graphs(slot_rows(token_ids, batch, BLOCK_SIZE)).clone()
        after = [pages.clone() for pages in kv.layers]
        for pages, original in zip(kv.layers, before, strict=True):
            pages.copy_(original)
        plain = model.logits(forward(model, token_ids, batch, kv))
        torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-5)
        for pages, written in zip(kv.layers, after, strict=True):
            torch.testing.assert_close(written, pages, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_runner_with_recorded_decodes_gives_the_tokens_of_transformers(
    path: Path, model: Falcon, oracle: FalconForCausalLM
) -> None:
    """Requests join and leave between steps of decodes alone, which are replayed, and mixed ones, which are not."""
    config = shard_config(
        path,
        max_batch_size=4,
        max_total_tokens=MAX_TOKENS,
        max_batch_total_tokens=4 * MAX_TOKENS,
        block_size=BLOCK_SIZE,
    )
    replayed: list[Replay] = []

    def record(step: Replay) -> Replay:
        def replay() -> torch.Tensor:
            replayed.append(step)
            return step()

        return replay

    runner = Runner(config, model, record)
    pool = BlockPool(runner.ready.num_blocks, BLOCK_SIZE)
    scheduler = Scheduler(pool, FairPolicy(4, lead=12), max_batch_size=4, max_step_tokens=12, eos_token_ids=frozenset())
    prompts = [tuple(torch.randint(257, (length,)).tolist()) for length in (9, 1, 20)]
    sequences = [submit(scheduler, Request(str(i), p, SamplingParams(), 3 + i)) for i, p in enumerate(prompts)]
    num_steps = 0
    while (step := scheduler.schedule()) is not None:
        scheduler.commit(runner.execute(decode_to_shard(encode(step))))
        num_steps += 1
    assert 0 < len(replayed) < num_steps
    for sequence, prompt in zip(sequences, prompts, strict=True):
        tokens = list(sequence.token_ids)
        logits = oracle(torch.tensor([tokens])).logits[0]
        assert tokens[len(prompt) :] == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(do_sample=True, temperature=1e-4, seed=3)])
def test_draft_tokens_are_replayed_too(sampling: SamplingParams, path: Path, model: Falcon) -> None:
    """Two sequences with draft tokens are one replay of a graph of three or four rows; their tokens stay the same."""
    sizes = {"max_total_tokens": MAX_TOKENS, "max_batch_total_tokens": 4 * MAX_TOKENS, "max_batch_size": 4}
    config = shard_config(path, **sizes)
    requests = [Request(str(i), prompt, sampling, 12 + 4 * i) for i, prompt in enumerate([(5, 9, 3) * 4, (7, 7, 7)])]
    plain = run(load_runner(path, **sizes), make_scheduler(4 * MAX_TOKENS // BLOCK_SIZE, max_batch_size=4), requests)
    speculation = free_draft_budget(3, 4)
    scheduler = make_scheduler(4 * MAX_TOKENS // BLOCK_SIZE, max_batch_size=4, speculation=speculation)
    sizes_replayed = set()

    def record(step: Replay) -> Replay:
        def replay() -> torch.Tensor:
            logits = step()
            sizes_replayed.add(len(logits))
            return logits

        return replay

    speculated = run(Runner(replace(config, max_draft_tokens=3), model, record), scheduler, requests)
    assert list(map(generated, speculated)) == list(map(generated, plain))
    assert speculation.num_accepted > 0
    assert 4 in sizes_replayed
