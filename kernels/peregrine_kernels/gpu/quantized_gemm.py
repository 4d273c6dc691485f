"""Products of 2 to 256 rows with a quantized weight: decoded in registers to where tensor cores take it from.

    out = f(x W^T + bias), rounded before each of the two         or partial sums of a part of the inputs, in float32

The weight is the first operand, so that its values never pass through shared memory: a lane loads 16 bytes and decodes
its share of 16 rows. Where a group's scale is one for 64 inputs, it multiplies their sums, of up to 32 rows of x; of
more rows that would take longer than to multiply the weights.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from peregrine_kernels.gpu.activation import NAMES, finished
from peregrine_kernels.gpu.decode_asm import TYPES, decode_asm
from peregrine_kernels.gpu.fragment_order import COLUMNS, TILE_ROWS, FragmentWeight
from peregrine_kernels.gpu.launch import Arguments, Constants, Launch, capability_of
from peregrine_kernels.gpu.packed_weight import fragment_tile, of_groups

MAX_ROWS = 256
"""Most rows of a product. Each BLOCK_ROWS of them read the weight, in 8 bits 4 bytes a weight in all; a GEMM on values
that are dequantized for it takes 5."""
BLOCK_ROWS = 64
"""Most rows of a program."""
PROGRAMS = 256
"""A weight of fewer tiles is split along its inputs until there are so many programs, about two a processor."""
MIN_SPLIT_COLUMNS = 512
"""Inputs of a split at least."""
WIDE = 8192
"""Outputs from which a program takes 8 tiles: 3.4 instead of 4.4 instructions a weight (int4, 16 rows, sm_80)."""
MAX_SUMMED_ROWS = 32
"""Most rows whose sums are multiplied by the scales of groups."""
BLOCK = 512
"""Outputs of a program that adds splits."""


@triton.jit
def group_scales(
    scales,
    zeros,
    tile,
    chunk,
    num_groups,
    GROUP: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    SCALES: tl.constexpr,
):
    """Scales and zeros of a chunk's groups as `fragment_tile` takes them, or the scale of each row of a product."""
    if SCALES == "weights":
        tiles, lane, word = tile[:, None, None], tl.arange(0, 32)[None, :, None], tl.arange(0, 4)[None, None, :]
        low = of_groups(scales, tiles, chunk, lane, word, num_groups, 0, GROUP)
        high = of_groups(scales, tiles, chunk, lane, word, num_groups, 1, GROUP)
        if HAS_ZEROS:
            low_zero = of_groups(zeros, tiles, chunk, lane, word, num_groups, 0, GROUP)
            return low, high, low_zero, of_groups(zeros, tiles, chunk, lane, word, num_groups, 1, GROUP)
        else:
            return low, high, low, low
    else:
        group = 0 if GROUP == 0 else tl.minimum(chunk // (GROUP // 64), num_groups - 1)
        rows = ((tile * num_groups + group) * 16)[:, None] + tl.arange(0, 16)[None, :]
        scale = tl.load(scales + rows.reshape([16 * tile.shape[0]]))
        return scale, scale, scale, scale


@triton.jit(do_not_specialize=["num_rows", "num_groups", "chunks_per_split"])
def quantized_gemm_kernel(
    # pointers
    x,
    words,
    scales,
    zeros,
    table,
    bias,
    out,
    # sizes
    num_rows,
    out_features,
    in_features,
    num_groups,
    chunks_per_split,
    # strides
    stride_x,
    stride_out,
    stride_split,
    # constants
    KIND: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    SCALES: tl.constexpr,
    ASM: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    K_WIDTH: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program: 16 TILES outputs of BLOCK_M rows, over the chunks of one split. Two chunks an iteration; their
    scales were loaded in the one before, since they are too narrow for the compiler to load ahead."""
    ROWS: tl.constexpr = 16 * TILES
    IS_SCALED: tl.constexpr = SCALES == "weights"
    dtype: tl.constexpr = x.dtype.element_ty
    num_chunks = tl.cdiv(in_features, COLUMNS)
    first = tl.program_id(2) * chunks_per_split
    last = tl.minimum(first + chunks_per_split, num_chunks)
    end = tl.minimum(last * COLUMNS, in_features)
    tile = tl.minimum(tl.program_id(1) * TILES + tl.arange(0, TILES), tl.cdiv(out_features, 16) - 1).to(tl.int64)
    word = (tl.arange(0, 32) * 4)[:, None] + tl.arange(0, 4)[None, :]
    at = words + (tile * num_chunks)[:, None, None] * 128 + word[None, :, :]
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    is_row = (row < num_rows)[None, :]
    k = tl.arange(0, COLUMNS)
    if K_WIDTH == 2:
        k = k // 16 * 16 + k % 8 // 2 * 4 + k % 16 // 8 * 2 + k % 2
        k = tl.max_contiguous(tl.multiple_of(k, 2), 2)
    at_x = x + row.to(tl.int64)[None, :] * stride_x + k[:, None]
    sums = tl.zeros([ROWS, BLOCK_M], tl.float32)
    even = group_scales(scales, zeros, tile, first, num_groups, GROUP, HAS_ZEROS, SCALES)
    odd = group_scales(scales, zeros, tile, first + 1, num_groups, GROUP, HAS_ZEROS, SCALES)
    for chunk in tl.range(first, last, 2, num_stages=STAGES):
        if SCALES != "outputs":
            next_even = group_scales(scales, zeros, tile, chunk + 2, num_groups, GROUP, HAS_ZEROS, SCALES)
            next_odd = group_scales(scales, zeros, tile, chunk + 3, num_groups, GROUP, HAS_ZEROS, SCALES)
        for part in tl.static_range(2):
            low, high, low_zero, high_zero = even if part == 0 else odd
            column = (chunk + part) * COLUMNS
            w = tl.load(at + tl.minimum(chunk + part, num_chunks - 1) * 128).to(tl.uint32, bitcast=True)
            columns = tl.load(at_x + column, mask=is_row & (column + k < end)[:, None], other=0.0)
            values = fragment_tile(
                w, table, low, high, low_zero, high_zero, KIND, dtype, IS_SCALED, HAS_ZEROS, ASM, K_WIDTH
            )
            if SCALES == "sums":
                sums += tl.dot(values, columns, input_precision="ieee") * low.to(tl.float32)[:, None]
            else:
                sums = tl.dot(values, columns, sums, input_precision="ieee")
        if SCALES != "outputs":
            even = next_even
            odd = next_odd
    if SCALES == "outputs":
        sums *= even[0][:, None]
    output = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    is_output = output < out_features
    if out.dtype.element_ty != tl.float32 or HAS_BIAS or ACTIVATION != "":
        sums = finished(sums, bias, output[:, None], is_output[:, None], dtype, HAS_BIAS, ACTIVATION)
    at_out = out + tl.program_id(2).to(tl.int64) * stride_split + row.to(tl.int64)[None, :] * stride_out
    tl.store(at_out + output[:, None], sums.to(out.dtype.element_ty), mask=is_row & is_output[:, None])


@triton.jit(do_not_specialize=["num_splits"])
def sum_splits_kernel(
    # pointers
    partials,
    bias,
    out,
    # sizes
    num_splits,
    out_features,
    # strides
    stride_split,
    stride_out,
    # constants
    BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program: BLOCK outputs of a row, whose splits are added in their order."""
    row = tl.program_id(0).to(tl.int64)
    output = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_output = output < out_features
    at = partials + row * out_features + output
    sums = tl.zeros([BLOCK], tl.float32)
    for _ in range(num_splits):
        sums += tl.load(at, mask=is_output, other=0.0)
        at += stride_split
    dtype: tl.constexpr = out.dtype.element_ty
    y = finished(sums, bias, output, is_output, dtype, HAS_BIAS, ACTIVATION)
    tl.store(out + row * stride_out + output, y.to(dtype), mask=is_output)


@dataclass(frozen=True, slots=True)
class GemmPlan:
    """How a product is divided among programs. It depends on the number of rows beyond MAX_SUMMED_ROWS alone, so that a
    row's sums do not depend on how many others there are up to that."""

    tiles: int
    """Tiles of a program."""
    blocks: int
    """Programs of a split."""
    splits: int
    chunks_per_split: int

    @staticmethod
    def of(weight: FragmentWeight, num_rows: int) -> "GemmPlan":
        out_features, in_features = weight.shape
        tiles = 8 if out_features >= WIDE and num_rows <= MAX_SUMMED_ROWS else 4
        blocks, chunks = triton.cdiv(out_features, tiles * TILE_ROWS), weight.words.shape[1]
        splits = max(1, min(triton.cdiv(PROGRAMS, blocks), in_features // MIN_SPLIT_COLUMNS))
        # A program takes two chunks at a time.
        per_split = 2 * triton.cdiv(chunks, 2 * splits)
        return GemmPlan(tiles, blocks, triton.cdiv(chunks, per_split), per_split)

    def partials(self, x: Tensor, out_features: int) -> Tensor | None:
        """Memory for the sums of each split, float32[splits, rows, out], if there are several."""
        if self.splits == 1:
            return None
        return torch.empty(self.splits, len(x), out_features, dtype=torch.float32, device=x.device)


def quantized_gemm_launches(
    x: Tensor,
    weight: FragmentWeight,
    bias: Tensor | None,
    activation: str | None,
    out: Tensor,
    plan: GemmPlan,
    capability: int | None = None,
) -> list[Launch]:
    """x [T, in], T at most MAX_ROWS, weight [out, in], bias [out] -> out [T, out], rows of both strided. One launch, or
    two with memory of their own between them. `capability` is by default that of x's device."""
    capability = capability_of(x.device) if capability is None else capability
    epilogue: Constants = {
        "HAS_BIAS": bias is not None,
        "ACTIVATION": "" if activation is None else NAMES[activation],
    }
    partials = plan.partials(x, weight.shape[0])
    if partials is None:
        target: Arguments = {"bias": bias, "out": out, "stride_out": out.stride(0), "stride_split": 0}
        return [_gemm_launch(x, weight, target, epilogue, plan, capability)]
    stride_split, stride_row = partials.stride()[:2]
    target = {"bias": None, "out": partials, "stride_out": stride_row, "stride_split": stride_split}
    return [
        _gemm_launch(x, weight, target, {"HAS_BIAS": False, "ACTIVATION": ""}, plan, capability),
        Launch(
            sum_splits_kernel,
            (len(x), triton.cdiv(weight.shape[0], BLOCK)),
            {
                **{"partials": partials, "bias": bias, "out": out},
                **{"num_splits": plan.splits, "out_features": weight.shape[0]},
                **{"stride_split": stride_split, "stride_out": out.stride(0)},
            },
            {"BLOCK": BLOCK, **epilogue},
            num_warps=4,
        ),
    ]


def _gemm_launch(
    x: Tensor, weight: FragmentWeight, target: Arguments, epilogue: Constants, plan: GemmPlan, capability: int
) -> Launch:
    """The product alone, to `target`."""
    num_rows = len(x)
    # In float32, which is for tests, more rows take more registers than there are.
    most_rows = BLOCK_ROWS if x.itemsize == 2 else 16
    arguments, constants = weight.arguments()
    scaled = _scaled(weight, num_rows)
    return Launch(
        quantized_gemm_kernel,
        # Programs that read the same of the weight follow each other: the second finds it in the L2 cache.
        (triton.cdiv(num_rows, most_rows), plan.blocks, plan.splits),
        {
            **{"x": x, **arguments, **target},
            **{"num_rows": num_rows, "chunks_per_split": plan.chunks_per_split, "stride_x": x.stride(0)},
        },
        {
            **constants,
            **{"SCALES": scaled, "ASM": _asm(weight, x.dtype, scaled), "TILES": plan.tiles},
            "BLOCK_M": min(max(16, triton.next_power_of_2(num_rows)), most_rows),
            # Columns that a lane's registers hold side by side: for wgmma two, for mma four.
            "K_WIDTH": 2 if capability // 10 == 9 else 4,
            # A codebook's values, too, would be copied to shared memory ahead.
            "STAGES": 1 if weight.kind == "codebook" else 4 if num_rows <= MAX_SUMMED_ROWS else 3,
            **epilogue,
        },
        num_warps=4,
    )


def _scaled(weight: FragmentWeight, num_rows: int) -> str:
    """The kernel's SCALES: what is multiplied by them."""
    if weight.group_size == 0:
        return "outputs"
    is_summed = weight.kind == "int4" and weight.zeros is None and weight.group_size % COLUMNS["int4"] == 0
    return "sums" if is_summed and num_rows <= MAX_SUMMED_ROWS else "weights"


def _asm(weight: FragmentWeight, dtype: torch.dtype, scaled: str) -> str:
    """PTX that decodes the weight, where there is some; the interpreter has none."""
    is_rounded_twice = scaled == "weights" and weight.scales.dtype != dtype
    has_none = weight.kind == "codebook" or weight.zeros is not None or dtype not in TYPES
    if knobs.runtime.interpret or has_none or is_rounded_twice:
        return ""
    return decode_asm(weight.kind, TYPES[dtype], scaled == "weights")
