"""CUDA graphs of decode steps: the whole model, from token ids to logits, started by one call.

A graph replays fixed launches on fixed memory. So one is captured for each of several batch sizes; a step is copied
into fixed inputs (`DecodeInputs`) and padded up to the next captured size; what varies, lengths and block tables, is
read by the kernels on the device. Grids are laid out for the longest sequence; programs past a sequence's end leave at
once.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from peregrine_kernels import PagedBatch
from peregrine_kernels.gpu.decode_inputs import decode_inputs_launch
from peregrine_kernels.kv_cache import GraphDecodeRows
from peregrine_server.models.interface import Cache, ForwardContext, Model

Replay = Callable[[], Tensor]
"""Runs a step on the fixed inputs; its result is overwritten by the next run."""

GraphCapturer = Callable[[Replay], Replay]
"""From a step to what replays it. `no_capture` replays by running it again, on any device."""


def capture_sizes(max_batch_size: int) -> list[int]:
    """Batch sizes with a graph: powers of two, halves between them from 8 on, and the largest batch itself.

    From 8 on fewer than half as many rows are added, which costs next to nothing while a step reads mostly weights.
    """
    powers = [2**i for i in range(max_batch_size.bit_length())]
    halves = [3 * power // 2 for power in powers if power >= 8]
    return sorted({size for size in (*powers, *halves) if size < max_batch_size} | {max_batch_size})


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """The fixed inputs of one captured size: the first rows of tensors that all sizes share."""

    token_ids: Tensor
    """int64[size]"""
    batch: PagedBatch

    @staticmethod
    def allocate(max_batch_size: int, max_total_tokens: int, block_size: int, device: torch.device) -> "DecodeInputs":
        """The inputs of the largest size: all padding."""
        tables = torch.zeros(max_batch_size, -(-max_total_tokens // block_size), dtype=torch.int64, device=device)
        token_ids = torch.zeros(max_batch_size, dtype=torch.int64, device=device)
        nowhere = torch.full((2, max_batch_size), -1, dtype=torch.int64, device=device)
        return DecodeInputs(token_ids, _decodes(nowhere[0], nowhere[1], tables, max_total_tokens))

    def first(self, size: int) -> "DecodeInputs":
        """The first `size` rows."""
        batch, longest = self.batch, self.batch.context_lengths[0]
        rows = (batch.positions[:size], batch.slot_mapping[:size], batch.block_tables[:size])
        return DecodeInputs(self.token_ids[:size], _decodes(*rows, longest))

    def fill(self, step: GraphDecodeRows) -> None:
        """Takes over at most as many decodes as there are rows; the others become padding."""
        decode_inputs_launch(step, self.token_ids, self.batch)()


class DecodeGraphs:
    """Logits of any batch of decodes of a model, by the graph of the next larger captured size."""

    def __init__(
        self,
        model: Model,
        cache: Cache,
        sizes: Sequence[int],
        max_total_tokens: int,
        block_size: int,
        capture: GraphCapturer,
    ) -> None:
        """A graph for each of the batch `sizes`, which ascend (see `capture_sizes`)."""
        self._sizes = sizes
        inputs = DecodeInputs.allocate(sizes[-1], max_total_tokens, block_size, model.context.device)
        self._inputs = {size: inputs.first(size) for size in self._sizes}
        # The largest first: the others then fit into its memory.
        self._replays = {
            size: capture(partial(_decode, model, cache, self._inputs[size])) for size in reversed(self._sizes)
        }

    def __call__(self, step: GraphDecodeRows) -> Tensor:
        """n decodes, at most as many as there are slots -> logits float32[n, V], overwritten by the next."""
        count = step.rows.shape[1]
        size = self._sizes[bisect_left(self._sizes, count)]
        self._inputs[size].fill(step)
        return self._replays[size]()[:count]


class CudaGraphCapturer:
    """Captures steps into CUDA graphs that share one pool of memory, since only one runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, step: Replay) -> Replay:
        # Kernels are compiled, and cuBLAS and NCCL set up, by a first run: none of it is allowed within a capture.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            step()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            output = step()
        return partial(_replay, graph, output)


def no_capture(step: Replay) -> Replay:
    """A step that is run again each time instead of being captured, on any device."""
    return step


def _replay(graph: torch.cuda.CUDAGraph, output: Tensor) -> Tensor:
    graph.replay()
    return output


def _decode(model: Model, cache: Cache, inputs: DecodeInputs) -> Tensor:
    # A new batch each time: what the backend plans for it must be allocated within the capture, of the graphs' memory.
    return model.next_logits(inputs.token_ids, ForwardContext(replace(inputs.batch), cache))


def _decodes(positions: Tensor, slot_mapping: Tensor, block_tables: Tensor, longest: int) -> PagedBatch:
    size = len(positions)
    return PagedBatch(positions, slot_mapping, block_tables, (1,) * size, (longest,) * size, num_decodes=size)
