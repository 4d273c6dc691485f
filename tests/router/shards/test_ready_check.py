"""Reports of shards that are ready: what no shard can have ends the start."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from peregrine_router.shards.ready_check import WrongReady, check_ready
from peregrine_server.protocol import CacheSpec, Ready
from runners import BLOCK_SIZE, shard_config

READY = Ready(0, "cpu", "float32", 1000, 192, BLOCK_SIZE, CacheSpec(64), "AMX")
WRONG: dict[str, dict[str, Any]] = {
    "device": {"device": "tpu:0"},
    "another block size": {"block_size": BLOCK_SIZE + 1},
    "no block size": {"block_size": 0},
    "too few blocks": {"num_blocks": 96 // BLOCK_SIZE - 1},
    "more blocks than were asked for": {"num_blocks": 193},
    "blocks without end": {"num_blocks": 2**62},
    "fewer blocks than none": {"num_blocks": -1},
    "negative weights": {"weight_bytes": -1},
    "fewer bytes than none": {"read_bytes": -1},
    "a load that ended before it began": {"load_seconds": -1.0},
    "a load without end": {"load_seconds": float("nan")},
    "a token of no memory's size": {"cache": CacheSpec(2**60)},
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_no_shard_has_is_refused(kind: str, tmp_path: Path) -> None:
    """In one line, before a scheduler is sized by it."""
    with pytest.raises(WrongReady, match=r"^shard 0 reports .*: is its version the router's\?$"):
        check_ready(replace(READY, **WRONG[kind]), shard_config(tmp_path))


def test_a_shard_may_have_fewer_blocks_than_its_sequences_could_use(tmp_path: Path) -> None:
    """At least those of the longest request; without a number from the operator, at most those of a full batch."""
    check_ready(READY, shard_config(tmp_path))
    config = shard_config(tmp_path, max_batch_total_tokens=None)
    for num_blocks in (12, 16 * 12):
        check_ready(replace(READY, num_blocks=num_blocks), config)
    with pytest.raises(WrongReady):
        check_ready(replace(READY, num_blocks=16 * 12 + 1), config)
