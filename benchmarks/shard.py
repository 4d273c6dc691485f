"""A shard in the benchmark's own process: a server's model and KV cache without router, sockets or HTTP."""

import os
from pathlib import Path
from typing import Any

from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import ShardConfig


def load_shard(path: Path, max_batch_size: int, max_tokens: int, **options: Any) -> Runner:
    """The model in a folder, as `config_of` says."""
    return Runner.load(config_of(path, max_batch_size, max_tokens, **options), lambda _done, _total: None)


def load_shards(configs: list[ShardConfig]) -> list[Runner]:
    """Several shards of the same weights, each with its own cache and batch."""
    first = Runner.load(configs[0], lambda _done, _total: None)
    return [first, *(Runner(config, first.model) for config in configs[1:])]


def config_of(path: Path, max_batch_size: int, max_tokens: int, **options: Any) -> ShardConfig:
    """bfloat16 on all cores, with a cache for `max_batch_size` sequences of `max_tokens`; `options`: other fields."""
    settings = {
        "dtype": "bfloat16",
        "num_threads": len(os.sched_getaffinity(0)),
        "max_batch_total_tokens": max_batch_size * max_tokens,
        **options,
    }
    return ShardConfig(
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
