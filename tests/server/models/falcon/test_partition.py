"""The arithmetic of sharding: complete, aligned with its KV heads, and equal on every rank."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import PUBLISHED
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import Partition, partition
from peregrine_server.models.loading.slices import Run, Slice

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(1, 400), st.integers(1, 9))
"""KV heads, query heads of each, half the head dimension, width of MLP and vocabulary, ranks."""


def config_of(num_kv_heads: int, group_size: int, half_dim: int, width: int) -> FalconConfig:
    num_heads = num_kv_heads * group_size
    hf = {
        "model_type": "falcon",
        "new_decoder_architecture": True,
        "hidden_size": num_heads * half_dim * 2,
        "num_attention_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "num_hidden_layers": 1,
        "ffn_hidden_size": width,
        "vocab_size": width,
        "eos_token_id": 0,
    }
    return FalconConfig.from_hf(hf)


def spread(part: Slice) -> list[int | None]:
    """For every element of the rank's axis, where it comes from; None is padding."""
    out: list[int | None] = [None] * part.size
    for run in part.runs:
        assert run.length > 0
        assert out[run.target : run.target + run.length] == [None] * run.length
        out[run.target : run.target + run.length] = range(run.source, run.source + run.length)
    return out


def real(part: Slice) -> list[int]:
    return [source for source in spread(part) if source is not None]


def sizes(part: Partition) -> tuple[int, ...]:
    slices = (part.heads, part.qkv, part.dense, part.ffn, part.vocab)
    return part.num_heads, part.num_kv_heads, *(piece.size for piece in slices)


@given(SHAPES)
def test_every_element_is_on_exactly_one_rank(shape: tuple[int, int, int, int, int]) -> None:
    """Query heads, dense columns, MLP width and vocabulary are dealt out completely and once; all ranks are alike."""
    *dimensions, num_ranks = shape
    config = config_of(*dimensions)
    parts = [partition(config, rank, num_ranks) for rank in range(num_ranks)]
    assert len({sizes(part) for part in parts}) == 1
    assert sorted(head for part in parts for head in real(part.heads)) == list(range(config.num_heads))
    assert sorted(column for part in parts for column in real(part.dense)) == list(range(config.hidden_size))
    assert [row for part in parts for row in real(part.ffn)] == list(range(config.ffn_size))
    assert [row for part in parts for row in real(part.vocab)] == list(range(config.vocab_size))
    assert all(part.vocab_start == row for part in parts for row in real(part.vocab)[:1])


@given(SHAPES)
def test_query_heads_meet_their_own_kv_head(shape: tuple[int, int, int, int, int]) -> None:
    """In [all q | all k | all v], local query head i belongs to local KV head i // (heads per KV head)."""
    *dimensions, num_ranks = shape
    config = config_of(*dimensions)
    d, group_rows = config.head_dim, (config.group_size + 2) * config.head_dim
    for rank in range(num_ranks):
        part = partition(config, rank, num_ranks)
        rows, heads = spread(part.qkv), spread(part.heads)
        assert len(rows) == (part.num_heads + 2 * part.num_kv_heads) * d
        assert part.num_heads % part.num_kv_heads == 0
        for local, head in enumerate(heads):
            if head is None:
                assert rows[local * d : (local + 1) * d] == [None] * d
                continue
            group, index = divmod(head, config.group_size)
            kv = local // (part.num_heads // part.num_kv_heads)
            first = {"q": local, "k": part.num_heads + kv, "v": part.num_heads + part.num_kv_heads + kv}
            offsets = {"q": index, "k": config.group_size, "v": config.group_size + 1}
            for name, at in first.items():
                source = group * group_rows + offsets[name] * d
                assert rows[at * d : (at + 1) * d] == list(range(source, source + d))


@pytest.mark.parametrize(
    ("model", "num_ranks", "num_heads", "num_kv_heads"),
    [
        ("falcon-7b", 1, 71, 1),
        ("falcon-7b", 2, 36, 1),
        ("falcon-7b", 3, 24, 1),
        ("falcon-40b", 3, 48, 3),
        ("falcon-40b", 8, 16, 1),
        ("falcon-40b", 16, 8, 1),
        ("falcon-40b", 12, 12, 2),
        ("falcon-180B", 4, 58, 2),
        ("falcon-rw-1b", 3, 11, 11),
    ],
)
def test_heads_of_published_models(model: str, num_ranks: int, num_heads: int, num_kv_heads: int) -> None:
    """Any number of ranks works for any model, and each rank has this many heads."""
    part = partition(FalconConfig.from_hf(PUBLISHED[model]), num_ranks - 1, num_ranks)
    assert (part.num_heads, part.num_kv_heads) == (num_heads, num_kv_heads)


@pytest.mark.parametrize("model", PUBLISHED)
def test_one_rank_pads_nothing(model: str) -> None:
    """Alone, a rank holds the model as it is, and reads everything but the fused QKV in one run."""
    part = partition(FalconConfig.from_hf(PUBLISHED[model]), 0, 1)
    for piece in (part.dense, part.ffn, part.vocab):
        assert piece.runs == (Run(0, 0, piece.size),)
    assert not part.qkv.is_padded


def test_split_widths_are_aligned() -> None:
    """Split MLP widths and vocabularies are multiples of 64."""
    part = partition(FalconConfig.from_hf(PUBLISHED["falcon-7b"]), 1, 3)
    assert (part.ffn.size % 64, part.vocab.size % 64) == (0, 0)


def test_a_rank_outside_the_group_is_refused() -> None:
    """Rank 2 of 2 does not exist."""
    with pytest.raises(ValueError, match="rank 2 is not among 2"):
        partition(FalconConfig.from_hf(PUBLISHED["falcon-7b"]), 2, 2)
