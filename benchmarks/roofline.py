"""Roofline model of a step: bytes over bandwidth or operations over peak, kernel by kernel.

Each kernel's bytes and operations follow from the arguments of its own launch (grid, strides, tiles, padding), made on
tensors without storage. Measured figures stand beside the predictions once there are any (`make bench-gpu`).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import DEVICES, Device
from benchmarks.kernel_costs import DTYPE, META, W8A8, Cost, Work, cost_of, empty, linear_costs
from peregrine_kernels import KVCache, PagedBatch
from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.gpu.activation import activation_launch
from peregrine_kernels.gpu.decode_attention import SPLIT_TOKENS, Splits, decode_attention_launch, merge_splits_launch
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.layernorm import layer_norm_launch
from peregrine_kernels.gpu.prefill_attention import PrefillTiles, prefill_attention_launch
from peregrine_kernels.gpu.quantized_gemm import MAX_ROWS
from peregrine_kernels.gpu.rotary_kv import rotary_kv_launch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "roofline.json"
MEASURED = ROOT / "benchmarks" / "results" / "gpu.json"
BLOCK_SIZE = 64


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


QUANTIZED = ("falcon-7b", "falcon-40b")
"""Models that are predicted in 8 and 4 bits, too."""


def predictions(known: dict[tuple[Any, ...], float]) -> Iterator[dict[str, Any]]:
    """Predictions for every Falcon and step on every device; `known`: (device, model, rows, context) -> measured
    milliseconds."""
    for shape, kind, work in cases():
        for has_fp8, devices in devices_of(kind):
            costs, count = step_costs(shape, work, kind, has_fp8), num_kernels(shape, work, kind, has_fp8)
            for device in devices:
                yield {
                    "device": device.name,
                    "model": shape.name,
                    "weights": kind or "bf16",
                    "sequences": work.num_sequences,
                    "tokens": work.num_tokens,
                    "context": work.context,
                    "gigabytes": round(sum(cost.num_bytes for cost in costs) / 1e9, 3),
                    "teraflops": round(sum(cost.flops for cost in costs) / 1e12, 4),
                    "kernels": count,
                    "roof_ms": round(sum(cost.seconds(device) for cost in costs) * 1e3, 3),
                    "measured_ms": None if kind else known.get((device.name, shape.name, work.num_rows, work.context)),
                }


def devices_of(kind: str) -> list[tuple[bool, list[Device]]]:
    """Devices by whether their multiplying fp8 makes a difference."""
    faster = [device for device in DEVICES if kind == W8A8 and device.fp8_flops_per_second]
    groups = (False, [device for device in DEVICES if device not in faster]), (True, faster)
    return [group for group in groups if group[1]]


def cases() -> Iterator[tuple[Shape, str, Work]]:
    """Models, the kind of their packed weights or "", and steps."""
    for shape in SHAPES:
        for kind in ("", "int8", W8A8, "int4") if shape.name in QUANTIZED else ("",):
            yield from ((shape, kind, work) for work in WORKS)


def measured() -> dict[tuple[Any, ...], float]:
    """The saved measurements of `make bench-gpu`."""
    data = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return {
        (data["device"], step["model"], step["rows"], step["context"]): step["milliseconds"]
        for step in data.get("steps", [])
    }


def step_costs(shape: Shape, work: Work, kind: str = "", has_fp8: bool = False) -> list[Cost]:
    """Costs of embedding, layers, last norm and output head; equal launches of all layers are one entry. Weights are
    packed as `kind`, W8A8 or one of `meta_weights`, the head in 8 bits; "": bfloat16. `has_fp8`: on a device that
    multiplies fp8."""
    layer = [*layer_costs(shape, work, kind, has_fp8)]
    return [
        Cost("embedding", 2 * work.num_rows * shape.hidden_size * DTYPE.itemsize, 0),
        *(cost.times(shape.num_layers) for cost in layer),
        cost_of(norm_launch(shape, work, 1), work),
        *head_costs(shape, work, kind),
    ]


def head_costs(shape: Shape, work: Work, kind: str) -> list[Cost]:
    return [*linear_costs("head", work.num_sequences, shape.vocab_size, shape.hidden_size, kind and "int8")]


def num_kernels(shape: Shape, work: Work, kind: str = "", has_fp8: bool = False) -> int:
    """Number of launches of a step: gaps between them are not in the model."""
    layer = [*layer_costs(shape, work, kind, has_fp8)]
    return shape.num_layers * len(layer) + 2 + len(head_costs(shape, work, kind))


def layer_costs(shape: Shape, work: Work, kind: str = "", has_fp8: bool = False) -> Iterator[Cost]:
    """Costs of one layer, in the order of its launches."""
    rows, hidden, attended = work.num_rows, shape.hidden_size, shape.num_heads * shape.head_dim
    up = shape.ffn_size * (2 if shape.is_gated else 1)
    yield cost_of(norm_launch(shape, work, shape.num_layer_norms if shape.is_parallel else 1), work)
    yield from linear_costs("qkv", rows, shape.qkv_size, hidden, kind, has_fp8)
    for launch in attention_launches(shape, work):
        yield cost_of(launch, work)
    if not shape.is_parallel:
        yield from linear_costs("dense", rows, hidden, attended, kind, has_fp8)
        yield cost_of(norm_launch(shape, work, 1), work)
    yield from linear_costs("up", rows, up, hidden, kind, has_fp8)
    if rows > (MAX_ROWS if kind else 1):
        activated = empty(rows, shape.ffn_size)
        yield cost_of(activation_launch("gelu", activated, None, activated), work)
    if shape.is_parallel:
        yield from linear_costs("dense_down", rows, hidden, attended + shape.ffn_size, kind, has_fp8)
    else:
        yield from linear_costs("down", rows, hidden, shape.ffn_size, kind, has_fp8)


def norm_launch(shape: Shape, work: Work, count: int) -> Launch:
    x = empty(work.num_rows, shape.hidden_size)
    affine = empty(shape.hidden_size), empty(shape.hidden_size)
    return layer_norm_launch(x, x, None, [affine] * count, [x] * count, 1e-5)


def attention_launches(shape: Shape, work: Work) -> Iterator[Launch]:
    """Launches of rotary with KV write, then of attention."""
    heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
    batch = _batch(work)
    pages = KVCache.allocate(1, 1, BLOCK_SIZE, kv_heads, dim, DTYPE, META).layers[0]
    fused, out = empty(work.num_rows, shape.qkv_size), empty(work.num_rows, heads * dim)
    rotary = None if shape.has_alibi else (empty(work.num_rows, 1, dim), empty(work.num_rows, 1, dim))
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


def _batch(work: Work) -> PagedBatch:
    ints = empty(work.num_rows, dtype=torch.int64)
    tables = empty(work.num_sequences, -(-work.context // BLOCK_SIZE), dtype=torch.int64)
    lengths = (work.num_tokens,) * work.num_sequences
    decodes = work.num_sequences if work.is_decode else 0
    return PagedBatch(ints, ints, tables, lengths, (work.context,) * work.num_sequences, decodes)


def table(entries: list[dict[str, Any]]) -> str:
    """A table of roofs: decode at batch 1 and 64, and a prefill, on each device."""
    names = [device.name for device in DEVICES]
    header = f"{'model':14}{'weights':9}{'step':24}{'GB':>9}{'TFLOP':>9}{'kernels':>9}" + "".join(
        f"{name:>16}" for name in names
    )
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
            f"{e['model']:14}{e['weights']:9}{kind + ' at ' + str(e['context']):24}{e['gigabytes']:9.2f}"
            f"{e['teraflops']:9.2f}{e['kernels']:9}{times}"
        )
    return "\n".join([*lines, "", "milliseconds at the roof / measured, where it was"])


if __name__ == "__main__":
    main()
