"""The GPU backend: the Triton kernels of this package around cuBLAS's GEMMs.

On CPU tensors it runs under Triton's interpreter (TRITON_INTERPRET=1 before anything imports triton): for tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels.gpu.decode_attention import SPLIT_TOKENS, Splits, decode_attention_launch, merge_splits_launch
from peregrine_kernels.gpu.float8_linear import Float8Linear
from peregrine_kernels.gpu.launch import capability_of
from peregrine_kernels.gpu.layernorm import layer_norm_launch
from peregrine_kernels.gpu.linear import QuantizedLinear, TritonLinear
from peregrine_kernels.gpu.prefill_attention import PrefillTiles, prefill_attention_launch
from peregrine_kernels.gpu.rotary_kv import rotary_kv_launch
from peregrine_kernels.gpu.sampling import sampling_launch
from peregrine_kernels.interface import Affine, Backend, Linear, Rotary
from peregrine_kernels.kv_cache import PagedBatch
from peregrine_kernels.weights import DenseWeight, Float8Weight, QuantizedWeight, UnsupportedWeight, Weight


class TritonBackend(Backend):
    """See `Backend` for what each op takes and gives. For decodes, contexts may be shorter than the batch says on the
    host, down to none (position -1): the kernels read them on the device, so that a recorded launch fits any."""

    largest_int8 = 127
    has_fp8 = True
    int4_group = 8
    has_codebooks = True

    def __init__(self, split_tokens: int = SPLIT_TOKENS) -> None:
        """Decodes are split into programs of `split_tokens`, a power of two of 16 at least."""
        self._split_tokens = split_tokens
        self._plan: _Plan | None = None
        self._side: torch.cuda.Stream | None = None

    def kernels(self, dtype: torch.dtype) -> str:
        if not torch.cuda.is_available():
            return "Triton, interpreted"
        return f"Triton sm_{capability_of(torch.device('cuda'))}"

    def sample(self, logits: Tensor, parameters: Tensor, has_logprobs: bool) -> tuple[Tensor, Tensor | None]:
        token_ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
        logprobs = logits.new_empty(len(logits)) if has_logprobs else None
        sampling_launch(logits, parameters, token_ids, logprobs)()
        return token_ids, logprobs

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if isinstance(weight, DenseWeight):
            return TritonLinear(weight.values, bias, activation)
        if isinstance(weight, Float8Weight) and weight.rounds_inputs:
            return Float8Linear(weight, bias, activation)
        if isinstance(weight, QuantizedWeight):
            return QuantizedLinear(weight, bias, activation)
        raise UnsupportedWeight.by("triton", weight)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        out = torch.empty_like(x)
        layer_norm_launch(x, None, None, [(weight, bias)], [out], eps)()
        return out

    def add_layer_norms(
        self, x: Tensor, delta: Tensor, bias: Tensor | None, affines: Sequence[Affine], eps: float
    ) -> tuple[Tensor, list[Tensor]]:
        outputs = [torch.empty_like(delta) for _ in affines]
        layer_norm_launch(x, delta, bias, affines, outputs, eps)()
        return delta, outputs

    def overlap(self, priority: Callable[[], object], background: Callable[[], object]) -> None:
        if not _is_recorded():
            priority()
            background()
            return
        # Branches of a graph. The priority branch goes first: attention has few programs, and the rest waits for it.
        if self._side is None:
            self._side = torch.cuda.Stream(priority=-1)
        main = torch.cuda.current_stream()
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            priority()
        background()
        main.wait_stream(self._side)

    def rotary_kv_write(
        self, qkv: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, num_heads: int
    ) -> None:
        rotary_kv_launch(qkv, rotary, batch, pages, num_heads)()

    def attention(
        self,
        q: Tensor,
        batch: PagedBatch,
        pages: Tensor,
        alibi_slopes: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        out = q.new_empty(q.shape) if out is None else out
        plan = self._plan
        if plan is None or not plan.is_of(batch, alibi_slopes):
            plan = self._plan = _Plan.of(batch, alibi_slopes, q, pages, self._split_tokens)
        plan.attend(q, pages, out)
        return out


def _is_recorded() -> bool:
    """Whether launches are being captured into a CUDA graph. Elsewhere another stream costs more than it saves."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """The part of a step's attention that all layers share."""

    batch: PagedBatch
    slopes: Tensor | None
    splits: Splits | None
    tiles: PrefillTiles | None

    @staticmethod
    def of(batch: PagedBatch, slopes: Tensor | None, q: Tensor, pages: Tensor, split_tokens: int) -> "_Plan":
        num_decodes, head_dim = batch.num_decodes, pages.shape[-1]
        num_heads = q.shape[1] // head_dim
        splits = tiles = None
        if num_decodes:
            longest = max(batch.context_lengths[:num_decodes])
            splits = Splits.of(num_decodes, longest, num_heads, head_dim, split_tokens, q.device)
        if num_decodes < len(batch.query_lengths):
            tiles = PrefillTiles.of(batch, num_heads // pages.shape[3], pages)
        return _Plan(batch, slopes, splits, tiles)

    def is_of(self, batch: PagedBatch, slopes: Tensor | None) -> bool:
        return self.batch is batch and self.slopes is slopes

    def attend(self, q: Tensor, pages: Tensor, out: Tensor) -> None:
        """Decodes and chunks in launches of their own, or a batch of both would be split as the one or the other."""
        tables, positions, slopes = self.batch.block_tables, self.batch.positions, self.slopes
        if self.splits is not None:
            n = self.batch.num_decodes
            decode_attention_launch(q[:n], tables, positions, pages, slopes, out[:n], self.splits)()
            if self.splits.count > 1:
                merge_splits_launch(positions, out[:n], self.splits)()
        if self.tiles is not None:
            prefill_attention_launch(q, tables, positions, pages, slopes, out, self.tiles)()
