"""Roofline model of a step: bytes over bandwidth or operations over peak, kernel by kernel.

Each kernel's bytes and operations follow from the arguments of its own launch (grid, strides, tiles, padding), made on
tensors without storage. Measured figures stand beside the predictions once there are any (`make bench-gpu`).
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.hardware import DEVICES, Device
from peregrine_kernels import KVCache, PagedBatch
from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.gpu.activation import activation_launch
from peregrine_kernels.gpu.decode_attention import SPLIT_TOKENS, Splits, decode_attention_launch, merge_splits_launch
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.layernorm import layer_norm_launch
from peregrine_kernels.gpu.prefill_attention import PrefillTiles, prefill_attention_launch
from peregrine_kernels.gpu.rotary_kv import rotary_kv_launch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "roofline.json"
MEASURED = ROOT / "benchmarks" / "results" / "gpu.json"
META = torch.device("meta")
BLOCK_SIZE = 64
DTYPE = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes and operations of one launch of a kernel, or of several."""

    kernel: str
    num_bytes: float
    """Bytes to and from memory, each tensor once."""
    flops: float
    """Operations on tensor cores, padding included."""

    def seconds(self, device: Device) -> float:
        return max(self.num_bytes / device.bytes_per_second, self.flops / device.flops_per_second)

    def times(self, count: int) -> "Cost":
        return Cost(self.kernel, self.num_bytes * count, self.flops * count)


@dataclass(frozen=True, slots=True)
class Work:
    """One step: `num_sequences` decodes at a context, or one chunk of `num_tokens` that ends there."""

    num_sequences: int
    num_tokens: int
    """Tokens that the step computes of each sequence."""
    context: int

    @property
    def num_rows(self) -> int:
        return self.num_sequences * self.num_tokens

    @property
    def is_decode(self) -> bool:
        return self.num_tokens == 1


def main() -> None:
    """Prints the table and saves it as data."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    entries = list(predictions(measured()))
    print(table(entries))
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


WORKS = (
    *(Work(batch, 1, context) for batch in (1, 8, 64, 256) for context in (128, 2048, 8192)),
    Work(1, 2048, 2048),
)


def predictions(known: dict[tuple[Any, ...], float]) -> Iterator[dict[str, Any]]:
    """Predictions for every Falcon and step on every device; `known`: (device, model, rows, context) -> measured
    milliseconds."""
    for shape in SHAPES:
        for work in WORKS:
            costs = step_costs(shape, work)
            for device in DEVICES:
                yield {
                    "device": device.name,
                    "model": shape.name,
                    "sequences": work.num_sequences,
                    "tokens": work.num_tokens,
                    "context": work.context,
                    "gigabytes": round(sum(cost.num_bytes for cost in costs) / 1e9, 3),
                    "teraflops": round(sum(cost.flops for cost in costs) / 1e12, 4),
                    "kernels": num_kernels(shape, work),
                    "roof_ms": round(sum(cost.seconds(device) for cost in costs) * 1e3, 3),
                    "measured_ms": known.get((device.name, shape.name, work.num_rows, work.context)),
                }


def measured() -> dict[tuple[Any, ...], float]:
    """The saved measurements of `make bench-gpu`."""
    data = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return {
        (data["device"], step["model"], step["rows"], step["context"]): step["milliseconds"]
        for step in data.get("steps", [])
    }


def step_costs(shape: Shape, work: Work) -> list[Cost]:
    """Costs of embedding, layers, last norm and output head; equal launches of all layers are one entry."""
    layer = [*layer_costs(shape, work)]
    rows = work.num_sequences
    return [
        Cost("embedding", 2 * work.num_rows * shape.hidden_size * DTYPE.itemsize, 0),
        *(cost.times(shape.num_layers) for cost in layer),
        cost_of(norm_launch(shape, work, 1), work),
        gemm("head", rows, shape.vocab_size, shape.hidden_size),
    ]


def num_kernels(shape: Shape, work: Work) -> int:
    """Number of launches of a step: gaps between them are not in the model."""
    return shape.num_layers * len([*layer_costs(shape, work)]) + 3


def layer_costs(shape: Shape, work: Work) -> Iterator[Cost]:
    """Costs of one layer, in the order of its launches."""
    rows, hidden, attended = work.num_rows, shape.hidden_size, shape.num_heads * shape.head_dim
    up = shape.ffn_size * (2 if shape.is_gated else 1)
    yield cost_of(norm_launch(shape, work, shape.num_layer_norms if shape.is_parallel else 1), work)
    yield gemm("qkv", rows, shape.qkv_size, hidden)
    for launch in attention_launches(shape, work):
        yield cost_of(launch, work)
    if not shape.is_parallel:
        yield gemm("dense", rows, hidden, attended)
        yield cost_of(norm_launch(shape, work, 1), work)
    yield gemm("up", rows, up, hidden)
    if rows > 1:
        activated = _empty(rows, shape.ffn_size)
        yield cost_of(activation_launch("gelu", activated, None, activated), work)
    if shape.is_parallel:
        yield gemm("dense_down", rows, hidden, attended + shape.ffn_size)
    else:
        yield gemm("down", rows, hidden, shape.ffn_size)


def gemm(name: str, rows: int, out_features: int, in_features: int) -> Cost:
    """Cost of x [rows, in] @ weight [out, in]^T."""
    numbers = out_features * in_features + rows * (in_features + out_features)
    return Cost(name, numbers * DTYPE.itemsize, 2 * rows * out_features * in_features)


def norm_launch(shape: Shape, work: Work, count: int) -> Launch:
    x = _empty(work.num_rows, shape.hidden_size)
    affine = _empty(shape.hidden_size), _empty(shape.hidden_size)
    return layer_norm_launch(x, x, None, [affine] * count, [x] * count, 1e-5)


def attention_launches(shape: Shape, work: Work) -> Iterator[Launch]:
    """Launches of rotary with KV write, then of attention."""
    heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
    batch = _batch(work)
    pages = KVCache.allocate(1, 1, BLOCK_SIZE, kv_heads, dim, DTYPE, META).layers[0]
    fused, out = _empty(work.num_rows, shape.qkv_size), _empty(work.num_rows, heads * dim)
    rotary = None if shape.has_alibi else (_empty(work.num_rows, 1, dim), _empty(work.num_rows, 1, dim))
    yield rotary_kv_launch(fused, rotary, batch, pages, heads)
    q, tables, positions = fused[:, : heads * dim], batch.block_tables, batch.positions
    if work.is_decode:
        splits = Splits.of(work.num_sequences, work.context, heads, dim, SPLIT_TOKENS, META)
        yield decode_attention_launch(q, tables, positions, pages, None, out, splits)
        if splits.count > 1:
            yield merge_splits_launch(positions, out, splits)
    else:
        tiles = PrefillTiles.of(batch, heads // kv_heads, pages)
        yield prefill_attention_launch(q, tables, positions, pages, None, out, tiles)


def cost_of(launch: Launch, work: Work) -> Cost:
    """Cost of a launch, from its own arguments."""
    name = launch.kernel.__name__.removesuffix("_kernel")
    num_bytes, flops = COSTS[name](launch, work)
    return Cost(name, num_bytes, flops)


def decode_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of decode attention: K and V once; q, out and the splits' results; rows padded to tiles."""
    c, q = launch.constants, _tensor(launch, "q")
    rows = int(c["HEADS"]) + int(c["MORE_HEADS"])
    flops = 4 * rows * int(c["BLOCK_D"]) * int(c["NUM_KV_HEADS"]) * work.context * work.num_sequences
    partial = _size(launch, "partials") + _size(launch, "lses") if launch.grid[2] > 1 else 0
    return kv_bytes(launch, work) + 2 * q.numel() * q.itemsize + partial, flops


def prefill_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of prefill attention: K and V once (later tiles find them in L2); each program multiplies the tiles that its
    last row sees."""
    c, q, tiles = launch.constants, _tensor(launch, "q"), _tensor(launch, "tiles")
    prefix = work.context - work.num_tokens
    rows, keys, group = int(c["BLOCK_M"]), int(c["BLOCK_N"]), int(c["GROUP"])
    seen = 0
    for first in range(0, work.num_tokens * group, rows):
        last = prefix + min((first + rows - 1) // group, work.num_tokens - 1)
        seen += (last // keys + 1) * keys
    flops = 4 * rows * int(c["BLOCK_D"]) * int(c["NUM_KV_HEADS"]) * seen * work.num_sequences
    return kv_bytes(launch, work) + 2 * q.numel() * q.itemsize + tiles.numel() * tiles.itemsize, flops


def kv_bytes(launch: Launch, work: Work) -> float:
    """Bytes of the pages read: a token's K and V are one stride."""
    pages, stride = _tensor(launch, "pages"), launch.arguments["stride_slot"]
    assert isinstance(stride, int)
    return stride * pages.itemsize * work.context * work.num_sequences


def merge_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "partials") + _size(launch, "lses") + _size(launch, "out"), 0


def rotary_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of rotary and KV write: the row is read; q is written back, k and v to pages of the same type."""
    qkv = _tensor(launch, "qkv")
    tables = 0 if launch.arguments["cos"] is None else _size(launch, "cos") + _size(launch, "sin")
    return 2 * qkv.numel() * qkv.itemsize + tables, 0


def norm_cost(launch: Launch, work: Work) -> tuple[float, float]:
    """Cost of residual and norms: x, delta, their sum, and each result."""
    tensors = ("x", "delta", "delta", "y_1", "y_2", "weight_1", "bias_1", "weight_2", "bias_2")
    return sum(_size(launch, name) for name in tensors if launch.arguments[name] is not None), 0


def activation_cost(launch: Launch, work: Work) -> tuple[float, float]:
    return _size(launch, "x") + _size(launch, "out"), 0


COSTS: dict[str, Callable[[Launch, Work], tuple[float, float]]] = {
    "decode_attention": decode_cost,
    "prefill_attention": prefill_cost,
    "merge_splits": merge_cost,
    "rotary_kv": rotary_cost,
    "layer_norm": norm_cost,
    "activation": activation_cost,
}
"""Kernel name -> function that gives (bytes, operations)."""


def _tensor(launch: Launch, name: str) -> Tensor:
    value = launch.arguments[name]
    assert isinstance(value, Tensor)
    return value


def _size(launch: Launch, name: str) -> int:
    tensor = _tensor(launch, name)
    return tensor.numel() * tensor.itemsize


def _empty(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _batch(work: Work) -> PagedBatch:
    ints = _empty(work.num_rows, dtype=torch.int64)
    tables = _empty(work.num_sequences, -(-work.context // BLOCK_SIZE), dtype=torch.int64)
    lengths = (work.num_tokens,) * work.num_sequences
    decodes = work.num_sequences if work.is_decode else 0
    return PagedBatch(ints, ints, tables, lengths, (work.context,) * work.num_sequences, decodes)


def table(entries: list[dict[str, Any]]) -> str:
    """A table of roofs: decode at batch 1 and 64, and a prefill, on each device."""
    names = [device.name for device in DEVICES]
    header = f"{'model':14}{'step':24}{'GB':>9}{'TFLOP':>9}{'kernels':>9}" + "".join(f"{name:>16}" for name in names)
    lines = [header, "-" * len(header)]
    for start in range(0, len(entries), len(DEVICES)):
        group = entries[start : start + len(DEVICES)]
        e = group[0]
        kind = f"{e['sequences']} x decode" if e["tokens"] == 1 else f"prefill {e['tokens']}"
        times = "".join(
            f"{each['roof_ms']:9.2f} ms" + (f"/{each['measured_ms']:<3.1f}" if each["measured_ms"] else "    ")
            for each in group
        )
        lines.append(
            f"{e['model']:14}{kind + ' at ' + str(e['context']):24}{e['gigabytes']:9.2f}{e['teraflops']:9.2f}"
            f"{e['kernels']:9}{times}"
        )
    return "\n".join([*lines, "", "milliseconds at the roof / measured, where it was"])


if __name__ == "__main__":
    main()
