"""The steps that a router sends for eight requests of all kinds, as frames."""

from typing import Any

from peregrine_router.request import Request, SamplingParams
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import Grammar, decode_to_shard, encode
from runners import free_draft_budget, make_scheduler

MAX_BATCH_SIZE = 8
NUM_BLOCKS = 40
SHARD: dict[str, Any] = {
    "dtype": "auto",
    "max_batch_size": MAX_BATCH_SIZE,
    "max_batch_total_tokens": NUM_BLOCKS * 8,
    "max_draft_tokens": 3,
    "eos_token_ids": (255,),
}
"""Changes to `runners.shard_config`: the kernels of this machine, which trust their indices."""
SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "seed": 3}
PENALTIES: dict[str, Any] = {"repetition_penalty": 1.2, "frequency_penalty": 0.5, "logit_bias": ((3, 2.0),)}


def golden_request() -> Request:
    """A greedy one that no damage may change."""
    return Request("golden", (7, 8, 9, 7, 8, 9), SamplingParams(), 8)


def requests() -> list[Request]:
    """Greedy, sampled, scored, penalized, watermarked, with a grammar, and with a prompt of several steps."""
    kinds: list[dict[str, Any]] = [
        {},
        SAMPLED,
        {"logprobs": True, "top_n_tokens": 3, "prompt_logprobs": True},
        PENALTIES,
        {"watermark": True, "min_tokens": 3, "end_token_ids": (255,)},
        {"grammar": Grammar("regex", "[a-z]{3,9}")},
        {},
    ]
    prompts = [(1, 2, 3, 1, 2, 3), (4, 5), (6, 7, 8), (9,), (10, 11), (12, 13), tuple(range(40))]
    return [
        Request(str(at), prompt, SamplingParams(**kind), 6)
        for at, (prompt, kind) in enumerate(zip(prompts, kinds, strict=True))
    ]


def record(runner: Runner) -> list[bytes]:
    """The frames of all steps until the requests and a group of two have ended."""
    scheduler = make_scheduler(
        NUM_BLOCKS, max_batch_size=MAX_BATCH_SIZE, speculation=free_draft_budget(3, MAX_BATCH_SIZE)
    )
    for request in requests():
        scheduler.submit_group([request])
    scheduler.submit_group([Request(f"group-{at}", (20, 21, 22), SamplingParams(**SAMPLED), 5) for at in range(2)])
    frames = []
    while (step := scheduler.schedule()) is not None:
        frames.append(encode(step))
        decoded = decode_to_shard(frames[-1])
        scheduler.commit(runner.execute(decoded))
    return frames
