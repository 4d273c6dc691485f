"""Kernels compiled ahead of time, without a GPU, and figures read from their machine code.

A launch is made by its own launcher on tensors without storage (torch's "meta" device), so that what is compiled is
what will be started. cuobjdump and nvdisasm are in Triton's wheel.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from peregrine_kernels.aot.quantized import product_launches, shared_launches
from peregrine_kernels.aot.shapes import SHAPES, Shape
from peregrine_kernels.gpu.activation import activation_launch
from peregrine_kernels.gpu.decode_attention import SPLIT_TOKENS, Splits, decode_attention_launch, merge_splits_launch
from peregrine_kernels.gpu.gemv import gemv_launch
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.layernorm import layer_norm_launch
from peregrine_kernels.gpu.prefill_attention import PrefillTiles, prefill_attention_launch
from peregrine_kernels.gpu.quantized_gemm import WIDE, sum_splits_kernel
from peregrine_kernels.gpu.rotary_kv import rotary_kv_launch
from peregrine_kernels.gpu.sampling import sampling_launch
from peregrine_kernels.kv_cache import KVCache, PagedBatch

ARCHITECTURES = {80: 163, 86: 99, 90: 227}
"""Compute capability, and KiB of shared memory that a block may have (CUDA's programming guide, table of
technical specifications): A100, A10G and the 30 series, H100 and H200."""

META = torch.device("meta")
BLOCK_SIZE = 64
NUM_TOKENS = 512
"""Tokens of the modelled chunk; no kernel's code depends on it."""
_ELEMENTS = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel at one model's shape."""

    kernel: str
    model: str
    shape: str
    launch: Launch


@dataclass(frozen=True, slots=True)
class Report:
    """One compiled kernel."""

    kernel: str
    arch: str
    model: str
    shape: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    tensor_core_instructions: int
    wide_loads: int
    """128-bit loads from global memory, the asynchronous ones to shared memory included."""
    narrow_loads: int
    """Narrower loads from global memory."""
    loop_shared_stores: int
    """Stores from registers to shared memory within loops."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def variants(capability: int) -> Iterator[Variant]:
    """Every kernel at every Falcon's shape in bfloat16, as a device of that capability gets it; attention and KV write
    also on 8-bit pages, for some; what no shape changes, once."""
    for shape in SHAPES:
        yield from variants_of(shape, capability)
        if shape.name in ("falcon-7b", "falcon-40b", "falcon-11B"):
            for dtype in (torch.int8, torch.float8_e4m3fn):
                yield from paged_variants(shape, dtype, capability)
    yield from sampling_variants()
    yield from quantized_variants(capability)


def quantized_variants(capability: int) -> Iterator[Variant]:
    """Linears of quantized weights: kernels that all models share, as one with few outputs has them, whose inputs are
    split, and one with many and an activation."""
    for what, launch in shared_launches():
        yield Variant(_name(launch), "falcon-40b", what, launch)
    for model, linear in {"falcon-7b": (4544, 22720, None), "falcon-40b": (32768, 8192, "gelu")}.items():
        for what, launch in product_launches(*linear, capability, more_groups=linear[0] > WIDE):
            if launch.kernel is not sum_splits_kernel:
                yield Variant(_name(launch), model, what, launch)
    (sums,) = [each for what, each in product_launches(4544, 22720, None, capability) if what.startswith("int8 64")][1:]
    yield Variant("sum_splits", "falcon-7b", "[T, 4544]", sums)


def _name(launch: Launch) -> str:
    return str(launch.kernel.__name__).removesuffix("_kernel")


def sampling_variants() -> Iterator[Variant]:
    """The sampling kernel for each vocabulary, named after the first model that has it."""
    models: dict[int, str] = {}
    for shape in SHAPES:
        if shape.num_ranks == 1:
            models.setdefault(shape.vocab_size, shape.name)
    for size, model in models.items():
        logits, parameters = _empty(1, size, dtype=torch.float32), _empty(4, 1, dtype=torch.float64)
        for logprobs in (None, _empty(1, dtype=torch.float32)):
            launch = sampling_launch(logits, parameters, _empty(1, dtype=torch.int64), logprobs)
            yield Variant("sampling", model, f"[S, {size}]" + " + log-probabilities" * (logprobs is not None), launch)


def variants_of(shape: Shape, capability: int) -> Iterator[Variant]:
    """All kernels at one shape."""
    yield from paged_variants(shape, torch.bfloat16, capability)
    x = _empty(NUM_TOKENS, shape.hidden_size)
    affine = _empty(shape.hidden_size), _empty(shape.hidden_size)
    count = shape.num_layer_norms if shape.is_parallel else 1
    bias = affine[1] if shape.has_alibi else None
    norm = layer_norm_launch(x, x, bias, [affine] * count, [x] * count, 1e-5)
    yield Variant("layer_norm", shape.name, f"[T, {shape.hidden_size}] -> {count}", norm)
    attended = shape.num_heads * shape.head_dim
    mixed = _empty(NUM_TOKENS, attended + (shape.ffn_size if shape.is_parallel else 0))
    activated = mixed[:, -shape.ffn_size :] if shape.is_parallel else _empty(NUM_TOKENS, shape.ffn_size)
    launch = activation_launch("gelu", activated, None, activated)
    yield Variant("activation", shape.name, f"[T, {shape.ffn_size}]", launch)
    yield from row_variants(shape, x[:1], activated[:1], bias)


def row_variants(shape: Shape, x: Tensor, activated: Tensor, bias: Tensor | None) -> Iterator[Variant]:
    """The linears of a lone decode: x [1, H] to qkv, and to `activated` [1, F]."""
    sizes = {"qkv": (shape.qkv_size, None), "up": (shape.ffn_size, "gelu")}
    for name, (size, activation) in sizes.items():
        out = activated if name == "up" else _empty(1, size)
        weight, biases = _empty(size, shape.hidden_size), None if bias is None else _empty(size)
        launch = gemv_launch(x, weight, biases, activation, out)
        yield Variant("gemv", shape.name, f"{name} [{size}, {shape.hidden_size}]", launch)


def paged_variants(shape: Shape, kv_dtype: torch.dtype, capability: int) -> Iterator[Variant]:
    """The kernels that touch the KV cache."""
    heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
    kind = "" if kv_dtype == torch.bfloat16 else str(kv_dtype).removeprefix("torch.")
    size = f"{heads}:{kv_heads} x {dim} {kind}".rstrip()
    pages = KVCache.allocate(1, 16, BLOCK_SIZE, kv_heads, dim, kv_dtype, META).layers[0]
    fused, out = _empty(NUM_TOKENS, shape.qkv_size), _empty(NUM_TOKENS, heads * dim)
    q = fused[:, : heads * dim]
    batch = meta_batch()
    slopes = _empty(heads, dtype=torch.float32) if shape.has_alibi else None
    rotary = None if shape.has_alibi else (_empty(NUM_TOKENS, 1, dim), _empty(NUM_TOKENS, 1, dim))
    write = rotary_kv_launch(fused, rotary, batch, pages, heads)
    yield Variant("rotary_kv", shape.name, size, write)
    splits = Splits.of(1, 2048, heads, dim, SPLIT_TOKENS, META)
    decode = decode_attention_launch(
        q[:1], batch.block_tables, batch.positions, pages, slopes, out[:1], splits, capability
    )
    yield Variant("decode_attention", shape.name, size, decode)
    tiles = PrefillTiles.of(batch, heads // kv_heads, pages, capability)
    prefill = prefill_attention_launch(q, batch.block_tables, batch.positions, pages, slopes, out, tiles)
    yield Variant("prefill_attention", shape.name, size, prefill)
    if not kind:
        yield Variant("merge_splits", shape.name, size, merge_splits_launch(batch.positions, out[:1], splits))


def meta_batch() -> PagedBatch:
    """A chunk of NUM_TOKENS without any data."""
    ints = _empty(NUM_TOKENS, dtype=torch.int64)
    tables = _empty(1, 32, dtype=torch.int64)
    return PagedBatch(ints, ints, tables, (NUM_TOKENS,), (NUM_TOKENS,), num_decodes=0)


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


Specialization = tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], list[list[str | int]]]]
"""Types by parameter, constants by parameter, attributes by parameter's index: what a kernel is compiled for."""


def specialization(launch: Launch) -> Specialization:
    """The specialization that Triton's launcher would choose: pointers and sizes divisible by 16 are marked, sizes of 1
    are constants."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = dict(launch.constants)
    attributes: dict[tuple[int, ...], list[list[str | int]]] = {}
    for index, name in enumerate(launch.kernel.arg_names):
        value = launch.arguments.get(name)
        if name in launch.constants or value is None or (isinstance(value, int) and value == 1):
            constants.setdefault(name, value)
            signature[name] = "constexpr"
            continue
        signature[name] = _type_of(value)
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def compile_launch(launch: Launch, capability: int) -> Any:
    """Triton's compiled kernel. Needs a process without TRITON_INTERPRET."""
    source = ASTSource(launch.kernel, *specialization(launch))
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


def _type_of(value: Tensor | int | float) -> str:
    if isinstance(value, Tensor):
        return "*" + _ELEMENTS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def report(variant: Variant, capability: int) -> Report:
    """Compiles one kernel and reads its machine code."""
    compiled = compile_launch(variant.launch, capability)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _run("cuobjdump", "-res-usage", str(cubin))
        code = _run("nvdisasm", "-c", str(cubin))
    registers, stack, local = (_usage(usage, field) for field in ("REG", "STACK", "LOCAL"))
    loads = re.findall(r"\b(LDGSTS|LDG)((?:\.\w+)+)", code)
    wide = sum(".128" in suffix for _, suffix in loads)
    return Report(
        variant.kernel,
        f"sm_{capability}",
        variant.model,
        variant.shape,
        registers,
        stack + local,
        compiled.metadata.shared,
        len(re.findall(r"\b(?:[HI]MMA|[HI]GMMA)\.", code)),
        wide,
        len(loads) - wide,
        len(re.findall(r"\bSTS\b", "\n".join(_loops(code)))),
    )


def _loops(code: str) -> list[str]:
    """The lines of a disassembly that a branch backwards encloses."""
    lines = code.splitlines()
    labels = {line.strip().rstrip(":"): at for at, line in enumerate(lines) if line.startswith(".L_x_")}
    jumps = ((at, re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)) for at, line in enumerate(lines))
    inside = {at for end, jump in jumps if jump and labels[jump[1]] < end for at in range(labels[jump[1]], end)}
    return [lines[at] for at in sorted(inside)]


def _usage(text: str, field: str) -> int:
    found = re.search(rf"\b{field}:(\d+)", text)
    return int(found[1]) if found else 0


def _run(tool: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True, env=os.environ).stdout
