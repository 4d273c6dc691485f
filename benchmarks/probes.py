"""Probes to time: a step's bare GEMMs, our steps, transformers. A call is one run; it returns seconds."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, FalconForCausalLM, StoppingCriteria, StoppingCriteriaList

from benchmarks.peak import peer_dtype
from benchmarks.shard import load_shard
from peregrine_kernels import Linear
from peregrine_kernels.cpu.native_linear import NativeLinear
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.cpu.torch_linear import PackedLinear
from peregrine_server.models.falcon.model import Falcon, SplitBlock
from peregrine_server.models.interface import Model
from peregrine_server.protocol import NewSequence, SamplingParams, Step, pack

MAX_TOKENS = 2048


def timed(call: Callable[[], object]) -> float:
    """Seconds that `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class BareGemms:
    """The packed GEMMs of one step of the model and nothing else: its own weights, no bias, activation or sum.

    In both packings: the model's own, and oneDNN's.
    """

    def __init__(self, model: Model) -> None:
        assert isinstance(model, Falcon)
        self._dtypes = {"ours": model.context.dtype, "oneDNN": peer_dtype()}
        layers = [
            linear
            for block in model.blocks
            if isinstance(block, SplitBlock)
            for linear in (block.qkv, block.up, block.dense, block.down)
        ]
        linears, theirs = [*layers, model.head.linear], self._dtypes["oneDNN"]
        self._products: dict[str, list[Linear]] = {
            "ours": [product(linear) for linear in linears],
            "oneDNN": [PackedLinear.pack(unpacked(linear).to(theirs), None, None) for linear in linears],
        }

    @torch.inference_mode()
    def seconds(self, packing: str, num_tokens: int, num_sampled: int) -> float:
        """Every layer on `num_tokens` rows, the head on `num_sampled`. For oneDNN few rows are padded before the clock
        starts: it is faster at four than at one."""
        dtype = self._dtypes[packing]
        if packing == "oneDNN":
            num_tokens, num_sampled = (
                max(rows, TorchBackend().gemm_min_rows(dtype)) for rows in (num_tokens, num_sampled)
            )
        *layers, head = self._products[packing]
        widths = {linear.in_features for linear in layers}
        inputs = {width: torch.randn(num_tokens, width).to(dtype) for width in widths}

        def run() -> None:
            for linear in layers:
                linear(inputs[linear.in_features])
            head(inputs[head.in_features][:num_sampled])

        return timed(run)


def product(linear: Linear) -> Linear:
    """The same packed weight without bias, activation or residual."""
    assert isinstance(linear, NativeLinear | PackedLinear)
    return linear.bare() if isinstance(linear, NativeLinear) else replace(linear, bias=None, activation=None)


def unpacked(linear: Linear) -> Tensor:
    """The weight [out, in] of a linear of the model."""
    assert isinstance(linear, NativeLinear | PackedLinear)
    if isinstance(linear, PackedLinear):
        return linear.packed.to_dense()
    return linear.packed.transpose(1, 2).reshape(-1, linear.in_features)[: linear.out_features]


class Ours:
    """A shard without a router: steps in, tokens out, as `Runner.execute` does for the server."""

    def __init__(self, path: Path, num_threads: int, quantize: str | None = None) -> None:
        self.runner = load_shard(path, 33, MAX_TOKENS, num_threads=num_threads, quantize=quantize)
        self.model = self.runner.model
        self._next_id = 0

    def prefill(self, length: int, slot: int = 0) -> float:
        """One prompt of `length` tokens, and its first token; the slot's blocks suffice for `MAX_TOKENS`."""
        blocks = MAX_TOKENS // self.runner.ready.block_size
        ids = torch.randint(0, self.model.config.vocab_size, (length,)).tolist()
        step = Step(
            self._id(),
            new=[NewSequence(slot, pack(ids), length, SamplingParams())],
            slots=pack([slot]),
            num_tokens=pack([length]),
            block_rows=pack([0] * blocks),
            new_blocks=pack(range(slot * blocks, (slot + 1) * blocks)),
        )
        return timed(lambda: self.runner.execute(step))

    def decode(self, batch_size: int) -> float:
        """One token for each of the sequences in the first slots."""
        step = Step(self._id(), slots=pack(range(batch_size)), num_decodes=batch_size)
        return timed(lambda: self.runner.execute(step))

    def rewind(self, context: int) -> None:
        """Resets every sequence to `context` computed tokens, so that no turn lengthens the next one's context."""
        batch = self.runner._batch
        batch.lengths[:] = context + 1
        batch._computed[:] = context

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id


class Transformers:
    """`generate` on the same weights, all streams in one static batch, in a process of its own with malloc's defaults,
    as users run it."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self._path, self._num_threads = path, num_threads
        self._process = ProcessPoolExecutor(1, get_context("spawn"))

    def generate(self, batch_size: int, length: int, new_tokens: int) -> list[float]:
        """Seconds to the first token, then of each step after it."""
        arguments = self._path, self._num_threads, batch_size, length, new_tokens
        return self._process.submit(generate_in_peer, *arguments).result()


@torch.inference_mode()
def generate_in_peer(path: Path, num_threads: int, batch_size: int, length: int, new_tokens: int) -> list[float]:
    """`Transformers.generate`, in its process."""
    torch.set_num_threads(num_threads)
    model = load_peer(path)
    ids = torch.randint(12, model.config.vocab_size, (batch_size, length))
    clock = Clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=11,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    return [after - before for before, after in pairwise(clock.times)]


@cache
def load_peer(path: Path) -> FalconForCausalLM:
    """Loads the model, once a process."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=peer_dtype())
    assert isinstance(model, FalconForCausalLM)
    model.train(False)
    return model


class Clock(StoppingCriteria):
    """A stopping criterion that never stops; records the time of each token."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)
