"""Steps that a GPU's shard runs before it is ready, so that no request waits for kernels to be compiled."""

from collections.abc import Iterator

from peregrine_server.protocol import NewSequence, SamplingParams, ShardConfig, Step, pack

PROMPT_TOKENS = 17
"""One more than 16 divides, as most chunks have: a size that 16 divides is another kernel where it is an argument."""


def warm_up_steps(config: ShardConfig) -> Iterator[Step]:
    """Prompts and decodes, one greedy and one sampled.

    They take slots and blocks that the first requests write anew: nothing reads what an ended sequence left.
    """
    kinds = [SamplingParams(), SamplingParams(do_sample=True, temperature=0.7, top_k=50, top_p=0.9)]
    slots = range(min(len(kinds), config.max_batch_size))
    length = min(PROMPT_TOKENS, config.max_total_tokens - 2, config.block_size - 2)
    if length < 1:
        return
    ids = pack([0] * length)
    yield Step(
        0,
        new=[NewSequence(slot, ids, length, kinds[slot]) for slot in slots],
        slots=pack(slots),
        num_tokens=pack([length for _ in slots]),
        block_rows=pack(slots),
        new_blocks=pack([0 for _ in slots]),
    )
    yield Step(0, slots=pack(slots), num_decodes=len(slots))
    yield Step(0, slots=pack([0]), num_decodes=1)
