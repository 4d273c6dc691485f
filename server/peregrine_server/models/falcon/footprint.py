"""The memory that a Falcon takes: pure arithmetic on its shape. Imports no torch.

Every rank holds the same number of bytes (`partition` pads), so no function here takes a rank.
"""

from collections.abc import Iterator

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import partition
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.interface import DTYPE_BYTES, WeightFormat

KV_SCALE_BYTES = 4
"""Bytes beside each head of 8-bit keys or values of a token."""


def num_weights(config: FalconConfig, num_ranks: int = 1, has_packed_head: bool = False) -> int:
    """Parameters that one rank holds, padding and replicas included.

    A tied head that is packed for its device (on a CPU) is a second copy of the embedding table.
    """
    matrices = sum(rows * columns for rows, columns in linears(config, num_ranks))
    return matrices + num_dense(config, num_ranks, has_packed_head)


def weight_bytes(
    config: FalconConfig,
    num_ranks: int,
    dtype: str,
    format: WeightFormat | None = None,
    *,
    has_packed_head: bool = False,
) -> int:
    """Bytes of one rank's weights in `dtype`, a key of DTYPE_BYTES; linears in `format`, or dense."""
    format = format or DenseFormat()
    total = num_dense(config, num_ranks, has_packed_head) * DTYPE_BYTES[dtype]
    return total + sum(format.num_bytes(rows, columns, dtype) for rows, columns in linears(config, num_ranks))


def linears(config: FalconConfig, num_ranks: int) -> Iterator[tuple[int, int]]:
    """(out, in) of every linear of one rank, the head among them."""
    part, hidden = partition(config, 0, num_ranks), config.hidden_size
    for _ in range(config.num_layers):
        yield part.qkv.size, hidden
        yield hidden, part.dense.size
        yield part.ffn.size, hidden
        yield hidden, part.ffn.size
    yield part.vocab.size, hidden


def num_dense(config: FalconConfig, num_ranks: int, has_packed_head: bool = False) -> int:
    """Parameters of one rank that are in no linear: embedding table, norms, biases.

    A tied head that is the table itself is a linear, and the table no second copy of it.
    """
    part, hidden = partition(config, 0, num_ranks), config.hidden_size
    biases = part.qkv.size + part.ffn.size + 2 * hidden if config.has_bias else 0
    norms = 2 * hidden * config.num_layer_norms
    table = 0 if config.is_tied and not has_packed_head else part.vocab.size * hidden
    return table + config.num_layers * (biases + norms) + 2 * hidden


def kv_bytes_per_token(config: FalconConfig, num_ranks: int, dtype: str, is_8_bit: bool = False) -> int:
    """Bytes of KV cache that one token takes on each rank, in `dtype` or in 8 bits with their scales."""
    num_kv_heads = partition(config, 0, num_ranks).num_kv_heads
    head_bytes = config.head_dim + KV_SCALE_BYTES if is_8_bit else config.head_dim * DTYPE_BYTES[dtype]
    return 2 * config.num_layers * num_kv_heads * head_bytes


def tokens_that_fit(config: FalconConfig, num_ranks: int, dtype: str, num_bytes: int, block_size: int = 1) -> int:
    """Tokens of KV cache, in whole blocks, that `num_bytes` of every rank hold; 0 when there is nothing left."""
    block_bytes = kv_bytes_per_token(config, num_ranks, dtype) * block_size
    return max(0, num_bytes) // block_bytes * block_size


def resident_conversations(
    config: FalconConfig, num_ranks: int, dtype: str, card_bytes: int, num_tokens: int, block_size: int = 64
) -> int:
    """Conversations of `num_tokens` whose K and V stay on cards of `card_bytes` each, beside the weights.

    `card_bytes` is the memory that the driver leaves to weights and cache; the caller subtracts activations.
    """
    free = card_bytes - weight_bytes(config, num_ranks, dtype)
    block_tokens = -(-num_tokens // block_size) * block_size
    return tokens_that_fit(config, num_ranks, dtype, free, block_size) // block_tokens


def padding_overhead(config: FalconConfig, num_ranks: int) -> float:
    """Weights that all ranks hold together beyond the model's own (zeros and replicas), as a fraction of those."""
    return num_ranks * num_weights(config, num_ranks) / num_weights(config) - 1
