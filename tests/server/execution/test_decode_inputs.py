"""A batch whose block tables are on the device as well, beside one that stages every step on the host."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peregrine_kernels.kv_cache import GraphDecodeRows
from peregrine_router.request import Request, SamplingParams
from peregrine_server.batch.batch import Batch
from peregrine_server.execution.cuda_graphs import DecodeInputs
from peregrine_server.protocol import Step, StepResult, decode_to_shard, encode, pack
from runners import BLOCK_SIZE, make_scheduler

NUM_SLOTS, MAX_TOKENS = 16, 96
CPU = torch.device("cpu")


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20), st.integers(1, 3)), min_size=1, max_size=6),
    st.sampled_from([14, 192]),
)
def test_decodes_by_slot_are_those_of_the_host(groups: list[tuple[int, int, int]], num_blocks: int) -> None:
    """Ragged prompts, forks that copy blocks, cached prefixes, preemptions, slots that are taken again: every step of
    decodes alone is laid out from slots and positions as the host lays it out."""
    by_host, for_graph = (Batch(NUM_SLOTS, MAX_TOKENS, BLOCK_SIZE, CPU, (), for_graph=each) for each in (False, True))
    scheduler = make_scheduler(num_blocks, max_step_tokens=24)
    num_by_slot = 0
    for number, (length, count, size) in enumerate(groups):
        prompt = tuple(range(length))
        names = [f"{number}-{i}" for i in range(size)]
        scheduler.submit_group([Request(name, prompt, SamplingParams(do_sample=True), count) for name in names])
    while (step := scheduler.schedule()) is not None:
        decoded = decode_to_shard(encode(step))
        assert isinstance(decoded, Step)
        for batch in (by_host, for_graph):
            batch.apply(decoded)
        host, work = by_host.forward_input(decoded), for_graph.forward_input(decoded)
        if host is None or work is None:
            scheduler.commit(StepResult(step.id, b"", b"", b""))
            continue
        assert not isinstance(host.inputs, GraphDecodeRows)
        token_ids, paged = host.inputs
        if isinstance(work.inputs, GraphDecodeRows):
            num_by_slot += 1
            rows, width = len(token_ids), paged.block_tables.shape[1]
            laid_out = DecodeInputs.allocate(NUM_SLOTS, MAX_TOKENS, BLOCK_SIZE, CPU)
            laid_out.fill(work.inputs)
            assert torch.equal(laid_out.token_ids[:rows], token_ids)
            assert torch.equal(laid_out.batch.positions[:rows], paged.positions)
            assert torch.equal(laid_out.batch.slot_mapping[:rows], paged.slot_mapping)
            is_block = torch.arange(width) * BLOCK_SIZE <= paged.positions[:, None]
            assert torch.equal(laid_out.batch.block_tables[:rows, :width][is_block], paged.block_tables[is_block])
        tokens = torch.arange(len(host.sampled)) + 100 * step.id
        for batch in (by_host, for_graph):
            batch.append(host.sampled, host.lengths, tokens)
        scheduler.commit(StepResult(step.id, pack(host.sampled.tolist()), pack(tokens.tolist()), b""))
    assert num_by_slot > 0 or max(count for _, count, _ in groups) < 4
