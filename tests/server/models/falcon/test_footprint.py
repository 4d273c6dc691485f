"""Weight and KV bytes against the published figures."""

import pytest

from checkpoints import PUBLISHED
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import (
    kv_bytes_per_token,
    num_weights,
    padding_overhead,
    resident_conversations,
    tokens_that_fit,
    weight_bytes,
)

CONFIGS = {model: FalconConfig.from_hf(hf) for model, hf in PUBLISHED.items()}
GIB = 2**30


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("falcon-7b", 8_192),
        ("falcon-40b", 122_880),
        ("falcon-180B", 163_840),
        ("falcon-11B", 245_760),
        ("falcon-rw-1b", 196_608),
    ],
)
def test_kv_bytes_of_a_token(model: str, expected: int) -> None:
    """In bfloat16 a token's keys and values take the published number of bytes."""
    assert kv_bytes_per_token(CONFIGS[model], 1, "bfloat16") == expected


@pytest.mark.parametrize(
    ("model", "billions"),
    [("falcon-7b", 6.92), ("falcon-40b", 41.3), ("falcon-180B", 178.3), ("falcon-11B", 11.1), ("falcon-rw-1b", 1.31)],
)
def test_number_of_weights(model: str, billions: float) -> None:
    """The models have as many parameters as their names say, near enough."""
    assert num_weights(CONFIGS[model]) / 1e9 == pytest.approx(billions, rel=0.01)


def test_weights_of_a_packed_head() -> None:
    """A tied head that is packed costs a second embedding table; an untied one has its own already."""
    tied, untied = CONFIGS["falcon-7b"], CONFIGS["falcon-11B"]
    extra = weight_bytes(tied, 1, "bfloat16", has_packed_head=True) - weight_bytes(tied, 1, "bfloat16")
    assert extra == 65024 * 4544 * 2
    assert weight_bytes(untied, 1, "float32", has_packed_head=True) == weight_bytes(untied, 1, "float32")


def test_kv_of_8_bits() -> None:
    """A byte for each number and a float32 for each head of K and of V: 7B's token takes 17/32 of bfloat16's bytes."""
    assert kv_bytes_per_token(CONFIGS["falcon-7b"], 1, "bfloat16", is_8_bit=True) == 32 * 2 * (64 + 4)


def test_kv_heads_of_a_rank() -> None:
    """8 KV heads over 4 ranks are a quarter each; the one of 7B is on both of 2 ranks."""
    assert kv_bytes_per_token(CONFIGS["falcon-40b"], 4, "bfloat16") == 122_880 // 4
    assert kv_bytes_per_token(CONFIGS["falcon-7b"], 2, "bfloat16") == 8_192


def test_tokens_that_fit_are_whole_blocks() -> None:
    """A 24 GiB card beside 7B's weights keeps over a million tokens; a remainder of a block is no block."""
    left = 24 * GIB - weight_bytes(CONFIGS["falcon-7b"], 1, "bfloat16")
    assert tokens_that_fit(CONFIGS["falcon-7b"], 1, "bfloat16", left) > 1_000_000
    assert tokens_that_fit(CONFIGS["falcon-7b"], 1, "bfloat16", 100 * 8_192, block_size=64) == 64
    assert tokens_that_fit(CONFIGS["falcon-7b"], 1, "bfloat16", -1) == 0


def test_conversations_that_stay_on_a_card() -> None:
    """With a tenth of a 24 GiB card for activations, 557 conversations of 2,048 tokens stay beside Falcon-7B."""
    config = CONFIGS["falcon-7b"]
    assert resident_conversations(config, 1, "bfloat16", 24 * GIB * 9 // 10, 2048) == 557
    assert resident_conversations(config, 1, "bfloat16", 24 * GIB * 9 // 10, 2049) < 557
    assert resident_conversations(config, 1, "bfloat16", 8 * GIB, 2048) == 0


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("num_shards", [1, 2, 3, 4, 8])
def test_padding_is_reported(model: str, num_shards: int) -> None:
    """Zeros and replicas cost nothing on one rank and under a tenth on any sensible number."""
    overhead = padding_overhead(CONFIGS[model], num_shards)
    assert overhead == 0 if num_shards == 1 else 0 < overhead < 0.1
