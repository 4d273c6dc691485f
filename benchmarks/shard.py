"""A shard in the benchmark's own process: a server's model and KV cache without router, sockets or HTTP."""

import os
from pathlib import Path
from typing import Any

from peregrine_server.protocol import ShardConfig
from peregrine_server.runner import Runner


def load_shard(path: Path, max_batch_size: int, max_tokens: int, **options: Any) -> Runner:
    """The model in a folder, in bfloat16 on all cores, with a cache for so many sequences of `max_tokens`.

    `options` are other fields of `ShardConfig`.
    """
    settings = {
        "dtype": "bfloat16",
        "num_threads": len(os.sched_getaffinity(0)),
        "max_batch_total_tokens": max_batch_size * max_tokens,
        **options,
    }
    config = ShardConfig(
        rank=0,
        num_shards=1,
        socket_path="",
        model_path=str(path),
        device="cpu",
        rendezvous="",
        max_batch_size=max_batch_size,
        max_total_tokens=max_tokens,
        **settings,
    )
    return Runner.load(config, lambda _done, _total: None)
