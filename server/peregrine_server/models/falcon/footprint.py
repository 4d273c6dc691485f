"""What fits where: pure arithmetic on a model's shape. Imports no torch.

Every rank holds the same number of bytes (`partition` pads), so no function here takes a rank.
"""

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import partition

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
KV_SCALE_BYTES = 4
"""Beside each head of 8-bit keys or values of a token."""
INT8_ROW_BYTES = 8
"""Beside each row of 8-bit integers: its scale, and its offset for unsigned inputs."""


def num_weights(config: FalconConfig, num_shards: int = 1, has_packed_head: bool = False) -> int:
    """Parameters one rank holds, padding and replicas included.

    A tied head that is packed for its device (on a CPU) is a second copy of the embedding table.
    """
    part = partition(config, 0, num_shards)
    hidden = config.hidden_size
    num_tables = 1 if config.is_tied and not has_packed_head else 2
    biases = part.qkv.size + part.ffn.size + 2 * hidden if config.has_bias else 0
    matrices = hidden * (part.qkv.size + part.dense.size + 2 * part.ffn.size)
    layer = matrices + biases + 2 * hidden * config.num_layer_norms
    return num_tables * part.vocab.size * hidden + config.num_layers * layer + 2 * hidden


def weight_bytes(
    config: FalconConfig, num_shards: int, dtype: str, has_packed_head: bool = False, is_int8: bool = False
) -> int:
    """Bytes of one rank's weights in `dtype`, a key of DTYPE_BYTES; with `is_int8` a byte for each of a linear's."""
    total = num_weights(config, num_shards, has_packed_head) * DTYPE_BYTES[dtype]
    if not is_int8:
        return total
    part, hidden, layers = partition(config, 0, num_shards), config.hidden_size, config.num_layers
    num_rows = layers * (part.qkv.size + part.ffn.size + 2 * hidden) + part.vocab.size
    num_integers = layers * hidden * (part.qkv.size + part.dense.size + 2 * part.ffn.size) + part.vocab.size * hidden
    return total - num_integers * (DTYPE_BYTES[dtype] - 1) + num_rows * INT8_ROW_BYTES


def kv_bytes_per_token(config: FalconConfig, num_shards: int, dtype: str, is_8_bit: bool = False) -> int:
    """Bytes of KV cache that one token takes on each rank, in `dtype` or in 8 bits with their scales."""
    num_kv_heads = partition(config, 0, num_shards).num_kv_heads
    head_bytes = config.head_dim + KV_SCALE_BYTES if is_8_bit else config.head_dim * DTYPE_BYTES[dtype]
    return 2 * config.num_layers * num_kv_heads * head_bytes


def tokens_that_fit(config: FalconConfig, num_shards: int, dtype: str, num_bytes: int, block_size: int = 1) -> int:
    """Tokens of KV cache, in whole blocks, that `num_bytes` of every rank hold; 0 when there is nothing left."""
    block_bytes = kv_bytes_per_token(config, num_shards, dtype) * block_size
    return max(0, num_bytes) // block_bytes * block_size


def resident_conversations(
    config: FalconConfig, num_shards: int, dtype: str, card_bytes: int, num_tokens: int, block_size: int = 64
) -> int:
    """Conversations of `num_tokens` whose K and V stay on cards of `card_bytes` each, beside the weights.

    `card_bytes` is what the driver leaves to weights and cache; activations are to be subtracted by the caller.
    """
    free = card_bytes - weight_bytes(config, num_shards, dtype)
    block_tokens = -(-num_tokens // block_size) * block_size
    return tokens_that_fit(config, num_shards, dtype, free, block_size) // block_tokens


def padding_overhead(config: FalconConfig, num_shards: int) -> float:
    """Weights that all ranks hold together beyond the model's own (zeros and replicas), as a fraction of those."""
    return num_shards * num_weights(config, num_shards) / num_weights(config) - 1
