"""Which rows and columns of every weight a rank holds: pure arithmetic. Imports no torch.

Any number of ranks works for any Falcon, by padding with zeros, which is exact: a zero query row gives a head whose
output meets zero columns of the dense layer, a zero KV group attends to zero values, and every activation maps 0 to 0.
"""

import math
from dataclasses import dataclass

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.loading.slices import Run, Slice, even


@dataclass(frozen=True, slots=True)
class Partition:
    """One rank's share of a Falcon. Every rank of a model has the same sizes."""

    num_heads: int
    """Query heads, padding included; those of one KV head are adjacent."""
    num_kv_heads: int
    heads: Slice
    """Slice of the checkpoint's query heads."""
    qkv: Slice
    """Rows of query_key_value, rearranged to [all q | all k | all v]."""
    dense: Slice
    """Columns of dense."""
    ffn: Slice
    """Rows of dense_h_to_4h and columns of dense_4h_to_h."""
    vocab: Slice
    """Rows of the embedding table and of the output head."""

    @property
    def vocab_start(self) -> int:
        """The first token id of this rank's table."""
        return self.vocab.runs[0].source if self.vocab.runs else 0


def partition(config: FalconConfig, rank: int, num_ranks: int) -> Partition:
    """The share of `rank` among `num_ranks`.

    With at least as many KV heads as ranks, KV groups are padded to a multiple of the ranks and dealt out. With fewer,
    gcd(KV heads, ranks) sets of ranks take equal numbers of KV heads; the ranks of a set replicate them and share
    each group's query heads, padded to a multiple of the set's size. So every rank has the same number of query heads
    per KV head.
    """
    if not 0 <= rank < num_ranks:
        raise ValueError(f"rank {rank} is not among {num_ranks}")
    num_sets = num_ranks if config.num_kv_heads >= num_ranks else math.gcd(config.num_kv_heads, num_ranks)
    set_size = num_ranks // num_sets
    num_groups = math.ceil(config.num_kv_heads / num_sets)
    share = math.ceil(config.group_size / set_size)
    first_group, first_head = rank // set_size * num_groups, rank % set_size * share
    groups = range(first_group, min(first_group + num_groups, config.num_kv_heads))
    num_real = max(0, min(share, config.group_size - first_head))
    heads = Slice(
        num_groups * share,
        tuple(
            Run(group * config.group_size + first_head, local * share, num_real)
            for local, group in enumerate(groups)
            if num_real
        ),
    )
    return Partition(
        num_heads=num_groups * share,
        num_kv_heads=num_groups,
        heads=heads,
        qkv=_qkv(config, heads, groups, num_groups).scaled(config.head_dim).merged(),
        dense=heads.scaled(config.head_dim).merged(),
        ffn=even(config.ffn_size, rank, num_ranks),
        vocab=even(config.vocab_size, rank, num_ranks),
    )


def _qkv(config: FalconConfig, heads: Slice, groups: range, num_groups: int) -> Slice:
    """In heads. The checkpoint's order is, for every variant, KV group by KV group: its query heads, its k, its v."""
    stride = config.group_size + 2
    queries = [
        Run(run.source // config.group_size * stride + run.source % config.group_size, run.target, run.length)
        for run in heads.runs
    ]
    keys = [Run(group * stride + config.group_size, heads.size + local, 1) for local, group in enumerate(groups)]
    values = [Run(key.source + 1, key.target + num_groups, 1) for key in keys]
    return Slice(heads.size + 2 * num_groups, (*queries, *keys, *values))
