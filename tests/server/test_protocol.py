"""The messages between the router and its shards, as bytes."""

import msgspec
import pytest

from peregrine_server.protocol import (
    Failed,
    NewSequence,
    SamplingParams,
    Step,
    StepResult,
    decode_from_shard,
    decode_to_shard,
    encode,
    pack,
    unpack,
)


def test_integers_travel_as_little_endian_int32() -> None:
    """Four bytes each, negative ones included."""
    assert pack([1, -2]) == b"\x01\0\0\0\xfe\xff\xff\xff"
    assert unpack(pack([1, -2, 2**31 - 1])).tolist() == [1, -2, 2**31 - 1]


def test_a_decode_step_of_256_sequences_is_under_two_kilobytes() -> None:
    """A step that adds nothing to the batch carries its slots and little else."""
    assert len(encode(Step(12345, slots=pack(range(256)), num_decodes=256, max_draft_tokens=8))) < 2048


def test_a_step_is_decoded_as_it_was_sent() -> None:
    """New sequences and their parameters included."""
    new = NewSequence(3, pack([1, 2]), 2, SamplingParams(seed=2**64 - 1, logit_bias=((5, -1.0),)), num_cached=1)
    step = Step(7, freed=pack([3]), new=[new], slots=pack([3]), num_tokens=pack([1]))
    assert decode_to_shard(encode(step)) == step


def test_a_message_of_the_other_direction_is_refused() -> None:
    """Each side decodes only the types that the other may send."""
    with pytest.raises(msgspec.ValidationError):
        decode_to_shard(encode(StepResult(1, b"", b"", b"")))
    with pytest.raises(msgspec.ValidationError):
        decode_from_shard(encode(Step(1)))
    assert decode_from_shard(encode(Failed(0, "no memory"))) == Failed(0, "no memory")
