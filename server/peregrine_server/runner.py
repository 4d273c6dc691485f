"""A shard's model, KV cache and batch behind one call: execute(Step) -> StepResult."""

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_kernels import backend_for
from peregrine_server.batch import Batch, StepWork
from peregrine_server.constraints import Constraints
from peregrine_server.device import available_kv_bytes, choose_device, choose_dtype
from peregrine_server.model.config import load_config
from peregrine_server.model.falcon import Falcon, load_falcon
from peregrine_server.parallel import TensorParallel
from peregrine_server.protocol import PromptLogprobs, Ready, ShardConfig, Step, StepResult, TopTokens
from peregrine_server.sampler import Sampled, Sampler

PROMPT_LOGPROB_ROWS = 256
"""Rows of logits held at once for prompt log-probabilities: 64 MiB of float32 at a vocabulary of 65,024."""


class Runner:
    """Deterministic in its weights and the steps that it was sent."""

    def __init__(self, config: ShardConfig, model: Falcon) -> None:
        self.model = model
        self._batch = Batch(config.max_batch_size, config.max_total_tokens, config.block_size, model.device)
        path, vocab_size = Path(config.model_path), model.config.vocab_size
        self._constraints = Constraints(path, vocab_size, config.eos_token_ids)
        self._sampler = Sampler(self._batch, self._constraints)
        num_blocks = _num_blocks(config, model)
        self._kv = model.allocate_kv_cache(num_blocks, config.block_size)
        self.ready = Ready(
            rank=config.rank,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            weight_bytes=model.weight_bytes,
            num_blocks=num_blocks,
            block_size=config.block_size,
            kv_bytes_per_token=model.kv_bytes_per_token,
        )

    @classmethod
    def load(cls, config: ShardConfig, progress: Callable[[int, int], None]) -> "Runner":
        """Joins the other ranks and reads this rank's slices. Errors are one line and say what to do."""
        torch.set_num_threads(config.num_threads)
        device = choose_device(config.device, config.rank, config.num_shards)
        path = Path(config.model_path)
        falcon_config = load_config(path)
        parallel = TensorParallel.join(config.rank, config.num_shards, device, config.rendezvous)
        dtype = choose_dtype(config.dtype, device)
        backend = backend_for(device, config.quantize)
        runner = cls(config, load_falcon(path, falcon_config, parallel, device, dtype, backend, progress))
        # What was loaded is never garbage; a full collection that looked at all of it would delay a step.
        gc.freeze()
        return runner

    @torch.inference_mode()
    def execute(self, step: Step) -> StepResult:
        """One step: apply the delta, run the model, sample, remember the tokens."""
        self._constraints.apply(step)
        work = self._batch.apply(step)
        if work is None:
            return StepResult(step.id, b"", b"", b"")
        if work.copies is not None:
            self._kv.copy_blocks(*work.copies)
        hidden = self.model.forward(work.token_ids, work.paged, self._kv)
        prompt_logprobs = self._prompt_logprobs(work, hidden)
        if not len(work.sampled):
            return StepResult(step.id, b"", b"", b"", prompt_logprobs=prompt_logprobs)
        sampled = self._sampler(self.model.logits(hidden[work.sample_rows]), work.sampled)
        self._batch.append(work, sampled.token_ids)
        if self._constraints.has_any():
            self._constraints.advance(work.sampled, sampled.token_ids.tolist())
        return _result(step.id, work.sampled, sampled, prompt_logprobs)

    def _prompt_logprobs(self, work: StepWork, hidden: Tensor) -> list[PromptLogprobs]:
        chunks = []
        rows_end = np.cumsum(work.num_tokens)
        for at in self._batch.parameters.wants_prompt_logprobs(work.slots).tolist():
            start, end = int(rows_end[at] - work.num_tokens[at]), int(rows_end[at])
            chunks += self._score(int(work.slots[at]), int(work.paged.positions[start]), hidden[start:end])
        return chunks

    def _score(self, slot: int, first: int, hidden: Tensor) -> list[PromptLogprobs]:
        """Row i of `hidden` scores the prompt token at position first + i + 1, if there is one."""
        chunks = []
        count = min(len(hidden), int(self._batch.prompt_lengths[slot]) - first - 1)
        for start in range(0, count, PROMPT_LOGPROB_ROWS):
            rows = hidden[start : min(start + PROMPT_LOGPROB_ROWS, count)]
            position = first + start + 1
            targets = self._batch.token_ids[slot, position : position + len(rows), None]
            logprobs = self.model.logits(rows).log_softmax(-1).gather(-1, targets)[:, 0]
            chunks.append(PromptLogprobs(slot, position, _floats(logprobs)))
        return chunks


def _num_blocks(config: ShardConfig, model: Falcon) -> int:
    """Blocks of KV cache: as many as asked for, else as fit the free memory and could ever be used.

    Raises ValueError if the longest request allowed would not fit.
    """
    needed = -(-config.max_total_tokens // config.block_size)
    tokens = config.max_batch_total_tokens
    if tokens is None:
        free = available_kv_bytes(model.device, config.num_shards, config.memory_fraction)
        tokens = min(free // model.kv_bytes_per_token, config.max_batch_size * needed * config.block_size)
    blocks = tokens // config.block_size
    if blocks < needed:
        raise ValueError(
            f"the KV cache holds {blocks * config.block_size} tokens, fewer than --max-total-tokens "
            f"{config.max_total_tokens}: lower that, or raise --max-batch-total-tokens if memory allows"
        )
    return blocks


def _result(step_id: int, slots: NDArray[np.int64], sampled: Sampled, prompt: list[PromptLogprobs]) -> StepResult:
    return StepResult(
        step_id,
        slots.astype("<i4").tobytes(),
        sampled.token_ids.to(torch.int32).cpu().numpy().tobytes(),
        _floats(sampled.logprobs) if sampled.logprobs is not None else b"",
        top_tokens=[
            TopTokens(int(slots[row]), ids.to(torch.int32).cpu().numpy().tobytes(), _floats(logprobs))
            for row, ids, logprobs in sampled.top
        ],
        prompt_logprobs=prompt,
        failed=list(sampled.failed),
    )


def _floats(values: Tensor) -> bytes:
    return values.to(torch.float32).cpu().numpy().tobytes()
