"""The CPU backend on torch alone: as few eager calls a layer as possible, writing where the next GEMM reads."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels.cpu.torch_attention import AttentionPlan, Layout
from peregrine_kernels.cpu.torch_linear import torch_linear
from peregrine_kernels.interface import Affine, Backend, Linear, Rotary
from peregrine_kernels.kv_cache import PagedBatch, scales_of, write_pages
from peregrine_kernels.weights import DenseWeight, UnsupportedWeight, Weight


class TorchBackend(Backend):
    """torch's and oneDNN's operations. See `Backend` for shapes."""

    fuses_epilogues = True
    """bfloat16, a layer of a 1.15B model on 2 cores with AVX512-BF16: separate GEMMs with epilogues take 3.68, 3.89,
    7.87, 27.2 and 208 ms at 1, 8, 32, 128 and 1024 tokens, concatenated ones 4.07, 4.11, 8.19, 27.7 and 217 ms."""
    dequantizes = True

    def __init__(self) -> None:
        self._plan: AttentionPlan | None = None

    def kernels(self, dtype: torch.dtype) -> str:
        return "torch"

    def gemm_min_rows(self, dtype: torch.dtype) -> int:
        # oneDNN 3.12 reads packed bfloat16 at 22, 19, 24 and 29 GB/s for 1, 2, 3 and 4 rows (2 cores with AVX512-BF16,
        # [8192, 2048] and its like, out of cache), but float32 at 26 GB/s for 1 row and 19 for 4.
        return 4 if dtype == torch.bfloat16 else 1

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if not isinstance(weight, DenseWeight):
            raise UnsupportedWeight.by("torch", weight)
        return torch_linear(weight.values, bias, activation)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def add_layer_norms(
        self, x: Tensor, delta: Tensor, bias: Tensor | None, affines: Sequence[Affine], eps: float
    ) -> tuple[Tensor, list[Tensor]]:
        x = (delta if bias is None else delta.add_(bias)).add_(x)
        return x, [self.layer_norm(x, weight, shift, eps) for weight, shift in affines]

    def rotary_kv_write(
        self, qkv: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, num_heads: int
    ) -> None:
        num_kv_heads, head_dim = pages.shape[3:]
        heads = qkv.view(len(qkv), -1, head_dim)
        if rotary is not None:
            rotate_(heads[:, : num_heads + num_kv_heads], *rotary)
        kv = heads[:, num_heads:]
        if scales_of(pages) is None:
            pages.view(-1, 2 * num_kv_heads, head_dim).index_copy_(0, batch.slot_mapping, kv)
        else:
            write_pages(pages, batch.slot_mapping, kv.unflatten(1, (2, num_kv_heads)))

    def attention(
        self,
        q: Tensor,
        batch: PagedBatch,
        pages: Tensor,
        alibi_slopes: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        plan = self._plan
        if plan is None or plan.batch is not batch or plan.alibi_slopes is not alibi_slopes:
            _, block_size, _, num_kv_heads, head_dim = pages.shape
            group = q.shape[1] // (num_kv_heads * head_dim)
            # Rounded to bfloat16 once more, K and V of 8 bits would lose what their scales keep.
            dtype = torch.float32 if scales_of(pages) is not None else pages.dtype
            layout = Layout(block_size, num_kv_heads, group, head_dim, dtype)
            plan = self._plan = AttentionPlan.of(batch, layout, alibi_slopes)
        return plan.attend(q, pages, out)


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """x = x * cos + (-second half, first half) * sin over x [T, heads, D], cos and sin [T, 1, D]."""
    half = x.shape[-1] // 2
    sine = x * sin
    x.mul_(cos)
    x[..., :half].sub_(sine[..., half:])
    x[..., half:].add_(sine[..., :half])
