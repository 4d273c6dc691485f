"""`make bench-gpu`: kernels and whole steps against their roofs, on the GPU at hand; results are kept as data.

Weights are random: time does not depend on them. Attention is measured with a cold L2 cache, as a layer finds it.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_linears import linear_cases
from benchmarks.gpu_model import CUDA, DTYPE, random_falcon
from benchmarks.gpu_trace import trace
from benchmarks.hardware import DEVICES, Device
from benchmarks.kernel_costs import Work, cost_of
from benchmarks.roofline import BLOCK_SIZE, attention_launches, step_costs
from peregrine_kernels import KVCache, PagedBatch
from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.kv_cache import GraphDecodeRows
from peregrine_server.execution.cuda_graphs import CudaGraphCapturer, DecodeGraphs
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.interface import ForwardContext

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
MODELS = ("falcon-7b", "falcon-11B")
BATCHES = (1, 8, 64, 256)
CONTEXTS = (128, 2048, 8192)
PREFILLS = (512, 2048)
REPEATS = 20
L2_BYTES = 256 * 2**20
"""Bytes to write between runs to flush the L2 cache: more than any device has."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A median time, and its fraction of the roof."""

    what: str
    model: str
    rows: int
    context: int
    milliseconds: float
    roof_ms: float

    @property
    def fraction(self) -> float:
        return self.roof_ms / self.milliseconds


def main() -> None:
    """Measures, prints, saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=MODELS, choices=[shape.name for shape in SHAPES if is_served(shape)]
    )
    parser.add_argument("--kernels-only", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("make bench-gpu needs a CUDA device, and torch finds none: see docs/gpu.md")
    device = this_device()
    shapes = [shape for shape in SHAPES if shape.name in options.models]
    kernels = [figure for shape in shapes for figure in kernel_figures(shape, device)]
    show("kernels, cold L2", kernels)
    linears = [figure for shape in shapes for figure in linear_figures(shape, device)]
    show("linears, cold L2", linears)
    steps: list[Figure] = []
    traces: dict[str, dict[str, Any]] = {}
    for shape in [] if options.kernels_only else shapes:
        model = random_falcon(shape)
        steps += step_figures(model, shape, device)
        traces[shape.name] = step_trace(model)
        del model
        torch.cuda.empty_cache()
    show("steps", steps)
    for name, found in traces.items():
        print(f"\na captured step of {name} at batch 1 and 2,048 tokens, by kernel:", json.dumps(found, indent=1))
    save(device, kernels, linears, steps, traces)


def is_served(shape: Shape) -> bool:
    """Whether one device can serve the whole model."""
    return shape.num_ranks == 1 and not shape.is_gated


def this_device() -> Device:
    """The data sheet of the GPU at hand."""
    name = torch.cuda.get_device_name(CUDA)
    for device in DEVICES:
        if device.name in name:
            return device
    raise SystemExit(f"benchmarks/hardware.py has no peaks for {name}: add them to DEVICES")


def seconds(run: Callable[[], Any], is_cold: bool = False) -> float:
    """Median seconds of REPEATS runs, by the device's clock."""
    flush = torch.empty(L2_BYTES, dtype=torch.int8, device=CUDA)
    run()
    times = []
    for _ in range(REPEATS):
        if is_cold:
            flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(statistics.median(times))


def recorded(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Captures the work as a CUDA graph, so that the host's launch time does not count."""
    return CudaGraphCapturer()(run)


def batch_of(work: Work) -> PagedBatch:
    """A batch that does `work` on shuffled blocks."""
    per_sequence = -(-work.context // BLOCK_SIZE)
    blocks = torch.randperm(work.num_sequences * per_sequence, device=CUDA).view(work.num_sequences, per_sequence)
    positions = torch.arange(work.context - work.num_tokens, work.context, device=CUDA).repeat(work.num_sequences)
    rows = torch.arange(work.num_sequences, device=CUDA).repeat_interleave(work.num_tokens)
    slots = blocks[rows, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    lengths = (work.num_tokens,) * work.num_sequences
    decodes = work.num_sequences if work.is_decode else 0
    return PagedBatch(positions, slots, blocks, lengths, (work.context,) * work.num_sequences, decodes)


def fits(num_bytes: float) -> bool:
    return num_bytes < 0.8 * torch.cuda.mem_get_info(CUDA)[0]


def kernel_figures(shape: Shape, device: Device) -> Iterator[Figure]:
    """Figures of one layer's attention, ours and torch's."""
    decodes = [Work(batch, 1, context) for batch in BATCHES for context in CONTEXTS]
    for work in [*decodes, *(Work(1, length, length) for length in PREFILLS), Work(1, 2048, 8192)]:
        num_blocks = work.num_sequences * -(-work.context // BLOCK_SIZE)
        kv_heads, dim = shape.num_kv_heads, shape.head_dim
        if not fits(8 * num_blocks * BLOCK_SIZE * kv_heads * dim * DTYPE.itemsize):
            continue
        pages = KVCache.allocate(1, num_blocks, BLOCK_SIZE, kv_heads, dim, DTYPE, CUDA).layers[0].normal_()
        q = torch.randn(work.num_rows, shape.num_heads * dim, device=CUDA, dtype=DTYPE)
        attention = list(attention_launches(shape, work))[1:]
        roof = sum(cost_of(launch, work).seconds(device) for launch in attention) * 1e3
        name = "decode attention" if work.is_decode else "prefill attention"
        ours = recorded(partial(TritonBackend().attention, q, batch_of(work), pages, out=torch.empty_like(q)))
        yield Figure(name, shape.name, work.num_rows, work.context, seconds(ours, is_cold=True) * 1e3, roof)
        theirs = recorded(torch_attention(shape, work))
        yield Figure(f"{name}, torch", shape.name, work.num_rows, work.context, seconds(theirs, True) * 1e3, roof)


def linear_figures(shape: Shape, device: Device) -> Iterator[Figure]:
    """Figures of one layer's linears with packed weights, and with bfloat16's."""
    for what, rows, run, roof in linear_cases(shape, device):
        yield Figure(what, shape.name, rows, 0, seconds(recorded(run), is_cold=True) * 1e3, roof * 1e3)


def torch_attention(shape: Shape, work: Work) -> Callable[[], Tensor]:
    """torch's fused attention on contiguous K and V, without pages."""
    q, k, v = (
        torch.randn(work.num_sequences, heads, tokens, shape.head_dim, device=CUDA, dtype=DTYPE)
        for heads, tokens in (
            (shape.num_heads, work.num_tokens),
            (shape.num_kv_heads, work.context),
            (shape.num_kv_heads, work.context),
        )
    )
    is_causal = work.num_tokens == work.context

    def run() -> Tensor:
        # The others would copy K and V to every query head.
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True)

    return run


def step_figures(model: Falcon, shape: Shape, device: Device) -> Iterator[Figure]:
    """Figures of whole decode steps as CUDA graphs, and of whole prompts."""
    for context in CONTEXTS:
        for batch in BATCHES:
            work = Work(batch, 1, context)
            if not fits(work.num_sequences * work.context * model.cache_spec.kv_bytes_per_token):
                continue
            run = decode_step(model, work)
            roof = sum(cost.seconds(device) for cost in step_costs(shape, work)) * 1e3
            yield Figure("decode step", shape.name, batch, context, seconds(run) * 1e3, roof)
    for length in PREFILLS:
        work = Work(1, length, length)
        kv = model.allocate_cache(-(-length // BLOCK_SIZE), BLOCK_SIZE)
        token_ids = torch.zeros(length, dtype=torch.int64, device=CUDA)
        run = partial(prefill, model, token_ids, batch_of(work), kv)
        roof = sum(cost.seconds(device) for cost in step_costs(shape, work)) * 1e3
        yield Figure("prefill", shape.name, length, length, seconds(run) * 1e3, roof)


def prefill(model: Falcon, token_ids: Tensor, batch: PagedBatch, kv: KVCache) -> Tensor:
    """Computes a prompt; logits after its last token."""
    return model.logits(model.forward(token_ids, ForwardContext(batch, kv))[-1:])


def decode_step(model: Falcon, work: Work, longest: int | None = None) -> Callable[[], Tensor]:
    """A decode step of the server's own graphs, inputs included, captured for contexts of up to `longest` (default: the
    work's)."""
    num_blocks = work.num_sequences * -(-work.context // BLOCK_SIZE)
    kv = model.allocate_cache(num_blocks, BLOCK_SIZE)
    graphs = DecodeGraphs(model, kv, [work.num_sequences], longest or work.context, BLOCK_SIZE, CudaGraphCapturer())
    batch = batch_of(work)
    token_ids = torch.zeros(work.num_sequences, work.context, dtype=torch.int64, device=CUDA)
    rows = torch.stack([torch.arange(work.num_sequences, device=CUDA), batch.positions])
    return lambda: graphs(GraphDecodeRows(rows, token_ids, batch.block_tables, BLOCK_SIZE))


def step_trace(model: Falcon) -> dict[str, Any]:
    """The trace of a replayed step, without the input kernel, which is outside the graph."""
    run = decode_step(model, Work(1, 1, 2048))
    run()
    return trace(run).after("decode_inputs_kernel").as_data()


def show(title: str, figures: list[Figure]) -> None:
    """Prints one line for each figure."""
    print(f"\n{title}")
    for f in figures:
        print(
            f"{f.what:26}{f.model:14}{f.rows:6} rows at {f.context:6}{f.milliseconds:10.3f} ms, "
            f"roof {f.roof_ms:8.3f} ms{f.fraction:8.0%}"
        )


def save(
    device: Device, kernels: list[Figure], linears: list[Figure], steps: list[Figure], traces: dict[str, Any]
) -> None:
    """Saves the figures with the machine they were measured on."""
    driver = "nvidia-smi --query-gpu=name,driver_version --format=csv,noheader"
    data = {
        "status": "measured",
        "device": device.name,
        "gpu": subprocess.run(driver.split(), capture_output=True, text=True, check=False).stdout.strip(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "kernels": [{**asdict(figure), "fraction": figure.fraction} for figure in kernels],
        "linears": [{**asdict(figure), "fraction": figure.fraction} for figure in linears],
        "steps": [{**asdict(figure), "fraction": figure.fraction} for figure in steps],
        "traces": traces,
    }
    RESULTS.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
