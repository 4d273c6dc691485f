"""The memory that a Falcon takes: pure arithmetic on its shape. Imports no torch.

Every rank holds the same number of bytes (`partition` pads), so no function here takes a rank.
"""

from collections.abc import Iterator

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import partition
from peregrine_server.models.falcon.tensors import HEAD
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.interface import DTYPE_BYTES, WeightFormat, rounds_inputs
from peregrine_server.models.interface import Footprint, Layout
from peregrine_server.models.layers.placement import buffer_bytes, host_bytes, offloaded_layers
from peregrine_server.protocol import CacheSpec

KV_SCALE_BYTES = 4
"""Bytes beside each head of 8-bit keys or values of a token."""
PANEL_ROWS, PANEL_ALIGNMENT = 4096, 128
"""Rows of a packed weight that a GPU's kernels dequantize at a time, and of what they are a multiple: tests hold that
these are the kernels' own."""


def footprint(config: FalconConfig, layout: Layout) -> Footprint:
    """Bytes on each rank of a model laid out so."""
    ranks, dtype, format = layout.num_ranks, layout.dtype, layout.format
    *_, (_, head) = linears(config, ranks)
    is_dense = format.head_num_bytes(*head, dtype) is None
    is_table = config.is_tied and is_dense and not layout.packs_weights
    sizes = layer_sizes(config, layout) if layout.offload_bytes else []
    offloaded = offloaded_layers(sizes, layout.offload_bytes)
    elsewhere, buffers = host_bytes(sizes, offloaded), buffer_bytes(sizes, offloaded)
    weights = weight_bytes(
        config, ranks, dtype, format, has_packed_head=layout.packs_weights, concatenates=layout.concatenates
    )
    return Footprint(
        weight_bytes=weights - elsewhere + buffers,
        unread_bytes=0 if is_table else DenseFormat().num_bytes(*head, dtype),
        cache=CacheSpec(kv_bytes_per_token(config, ranks, dtype, layout.has_8_bit_kv)),
        activation_bytes_per_token=activation_bytes_per_token(config, ranks, dtype, format),
        scratch_bytes=scratch_bytes(config, ranks, dtype, format),
        host_bytes=elsewhere,
        buffer_bytes=buffers,
    )


def num_weights(config: FalconConfig, num_ranks: int = 1, has_packed_head: bool = False) -> int:
    """Parameters that one rank holds, padding and replicas included.

    A tied head that is packed for its device (on a CPU) is a second copy of the embedding table.
    """
    matrices = sum(rows * columns for _, (rows, columns) in linears(config, num_ranks))
    return matrices + num_dense(config, num_ranks, has_packed_head)


def weight_bytes(
    config: FalconConfig,
    num_ranks: int,
    dtype: str,
    format: WeightFormat | None = None,
    *,
    has_packed_head: bool = False,
    concatenates: bool = False,
) -> int:
    """Bytes of one rank's weights in `dtype`, a key of DTYPE_BYTES; linears in `format`, or dense."""
    format = format or DenseFormat()
    *layers, (_, head) = linears(config, num_ranks, concatenates)
    head_bytes = format.head_num_bytes(*head, dtype)
    dense = num_dense(config, num_ranks, has_packed_head or head_bytes is not None) * DTYPE_BYTES[dtype]
    if head_bytes is None:
        head_bytes = DenseFormat().num_bytes(*head, dtype)
    return dense + head_bytes + sum(format.linear(name).num_bytes(*shape, dtype) for name, shape in layers)


def layer_sizes(config: FalconConfig, layout: Layout) -> list[int]:
    """Bytes of each layer's weights on one rank, but for the bias that the next layer's first norm adds."""
    ranks, dtype, format = layout.num_ranks, layout.dtype, layout.format
    handed_on = config.hidden_size * (2 if config.is_parallel else 1) if config.has_bias else 0
    vectors = (layer_vectors(config, ranks) - handed_on) * DTYPE_BYTES[dtype]
    layers = (layer_linears(config, ranks, layer, layout.concatenates) for layer in range(config.num_layers))
    return [
        vectors + sum(format.linear(name).num_bytes(*shape, dtype) for name, shape in linears) for linears in layers
    ]


def checkpoint_bytes(config: FalconConfig, num_ranks: int, dtype: str, format: WeightFormat) -> int:
    """Bytes that one rank reads of a checkpoint, floating-point values as `dtype`."""
    *layers, (_, head) = linears(config, num_ranks)
    dense = num_dense(config, num_ranks) * DTYPE_BYTES[dtype] + DenseFormat().num_bytes(*head, dtype)
    return dense + sum(format.linear(name).checkpoint_bytes(*shape, dtype) for name, shape in layers)


def linears(config: FalconConfig, num_ranks: int, concatenates: bool = False) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name and (out, in) of every linear of one rank, the head's last."""
    for layer in range(config.num_layers):
        yield from layer_linears(config, num_ranks, layer, concatenates)
    yield HEAD, (partition(config, 0, num_ranks).vocab.size, config.hidden_size)


def layer_linears(
    config: FalconConfig, num_ranks: int, layer: int, concatenates: bool = False
) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name and (out, in) of every linear of one layer on one rank; those of a sum as one, by the first's name, if
    the device concatenates them."""
    part, hidden = partition(config, 0, num_ranks), config.hidden_size
    is_one = concatenates and config.is_parallel
    yield f"h.{layer}.self_attention.query_key_value", (part.qkv.size, hidden)
    yield f"h.{layer}.self_attention.dense", (hidden, part.dense.size + (part.ffn.size if is_one else 0))
    yield f"h.{layer}.mlp.dense_h_to_4h", (part.ffn.size, hidden)
    if not is_one:
        yield f"h.{layer}.mlp.dense_4h_to_h", (hidden, part.ffn.size)


def layer_vectors(config: FalconConfig, num_ranks: int) -> int:
    """Parameters of one layer on one rank that are in no linear: norms and biases."""
    part, hidden = partition(config, 0, num_ranks), config.hidden_size
    biases = part.qkv.size + part.ffn.size + 2 * hidden if config.has_bias else 0
    return biases + 2 * hidden * config.num_layer_norms


def num_dense(config: FalconConfig, num_ranks: int, has_packed_head: bool = False) -> int:
    """Parameters of one rank that are in no linear: embedding table, norms, biases.

    A tied head that is the table itself is a linear, and the table no second copy of it.
    """
    part, hidden = partition(config, 0, num_ranks), config.hidden_size
    table = 0 if config.is_tied and not has_packed_head else part.vocab.size * hidden
    return table + config.num_layers * layer_vectors(config, num_ranks) + 2 * hidden


def kv_bytes_per_token(config: FalconConfig, num_ranks: int, dtype: str, is_8_bit: bool = False) -> int:
    """Bytes of KV cache that one token takes on each rank, in `dtype` or in 8 bits with their scales."""
    num_kv_heads = partition(config, 0, num_ranks).num_kv_heads
    head_bytes = config.head_dim + KV_SCALE_BYTES if is_8_bit else config.head_dim * DTYPE_BYTES[dtype]
    return 2 * config.num_layers * num_kv_heads * head_bytes


def activation_bytes_per_token(config: FalconConfig, num_ranks: int, dtype: str, format: WeightFormat) -> int:
    """Bytes beyond the weights of each token of a step at its peak, on a GPU.

    As `model.py` allocates: the residual before and after a block's first norm, that norm's outputs, and in a parallel
    block the fused QKV beside the input of the output GEMM; in a sequential one, attention or MLP, whichever is larger.
    And the input that a linear has rounded: in `dtype`, which is most.
    """
    part, hidden, layer_norms = partition(config, 0, num_ranks), config.hidden_size, config.num_layer_norms
    qkv, attended, ffn = part.qkv.size, part.dense.size, part.ffn.size
    if config.is_parallel:
        numbers = (2 + layer_norms) * hidden + attended + ffn + max(qkv, hidden)
    else:
        numbers = attended + max(3 * hidden + qkv + attended, 5 * hidden + ffn)
    if rounds_inputs(format):
        numbers += attended + ffn if config.is_parallel else max(attended, ffn)
    rotary = 0 if config.has_alibi else 2 * config.head_dim
    return (numbers + rotary) * DTYPE_BYTES[dtype]


def scratch_bytes(config: FalconConfig, num_ranks: int, dtype: str, format: WeightFormat) -> int:
    """Bytes of the largest part of a packed linear that is dequantized at a time, on a GPU; 0 if none is packed."""
    part, hidden = partition(config, 0, num_ranks), config.hidden_size
    sums = [part.dense.size + part.ffn.size] if config.is_parallel else [part.dense.size, part.ffn.size]
    shapes = [(part.qkv.size, hidden), (part.ffn.size, hidden), *((hidden, size) for size in sums)]
    packed = [shape for shape in shapes if format.num_bytes(*shape, dtype) < DenseFormat().num_bytes(*shape, dtype)]
    if format.head_num_bytes(part.vocab.size, hidden, dtype) is not None:
        packed.append((part.vocab.size, hidden))
    return max((_panel_rows(rows) * columns for rows, columns in packed), default=0) * DTYPE_BYTES[dtype]


def _panel_rows(num_rows: int) -> int:
    """Rows of a weight that are dequantized at a time: panels are as even as whole tiles are."""
    num_panels = -(-num_rows // PANEL_ROWS)
    return min(-(-num_rows // (num_panels * PANEL_ALIGNMENT)) * PANEL_ALIGNMENT, num_rows)


def padding_overhead(config: FalconConfig, num_ranks: int) -> float:
    """Weights that all ranks hold together beyond the model's own (zeros and replicas), as a fraction of those."""
    return num_ranks * num_weights(config, num_ranks) / num_weights(config) - 1
