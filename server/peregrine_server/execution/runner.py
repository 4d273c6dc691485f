"""A shard's model, KV cache and batch behind one call: execute(Step) -> StepResult."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_kernels import backend_for
from peregrine_kernels.kv_cache import KV_DTYPES, GraphDecodeRows
from peregrine_server.batch.batch import Batch, ForwardInput
from peregrine_server.batch.slot_parameters import Rows
from peregrine_server.batch.transfer import to_device
from peregrine_server.container import available_memory
from peregrine_server.distributed.rendezvous import Rendezvous
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.execution.device import choose_device, choose_dtype
from peregrine_server.execution.load_meter import LoadMeter
from peregrine_server.execution.memory_budget import num_blocks_of, num_blocks_that_fit
from peregrine_server.execution.memory_profile import check_memory, check_offload, profile_memory, ran_out
from peregrine_server.execution.pending_step import PendingStep, pack_floats
from peregrine_server.execution.step_check import StepCheck
from peregrine_server.execution.warm_up import warm_up_steps
from peregrine_server.models.interface import Cache, ForwardContext, Model, ModelContext
from peregrine_server.models.layers.copies import bytes_per_second
from peregrine_server.models.registry import footprint, load_config, load_format, load_model
from peregrine_server.protocol import PromptLogprobs, Ready, ShardConfig, Step, StepResult, pack
from peregrine_server.sampling.host_copy import DeviceToHostCopier, PendingCopy
from peregrine_server.sampling.registry import PROCESSORS, Processor, sampling_fields
from peregrine_server.sampling.sampler import Sampler
from peregrine_server.speculation.proposer import DraftProposer
from peregrine_server.speculation.token_mirror import HostTokenMirror
from peregrine_server.structured.masks import GrammarMasks

if TYPE_CHECKING:
    from peregrine_server.execution.cuda_graphs import DecodeGraphs, GraphCapturer

PROMPT_LOGPROB_ROWS = 256
"""Rows of logits held at once for prompt log-probabilities: 64 MiB of float32 at a vocabulary of 65,024."""
_NO_SLOTS = np.zeros(0, dtype=np.int64)


class Runner:
    """Executes steps. Its tokens depend on the weights and on the steps that it was sent, and on nothing else."""

    def __init__(
        self,
        config: ShardConfig,
        model: Model,
        capture: "GraphCapturer | None" = None,
        processors: Sequence[Processor] = PROCESSORS,
    ) -> None:
        """`capture`: captures decode steps as graphs, and returns their replay; unused if the model has state by slot.

        `processors`: see `Sampler`.
        """
        _check_tokens_fit(config)
        self.model, context = model, model.context
        sizes = (config.max_batch_size, config.max_total_tokens)
        fields = sampling_fields(processors)
        has_state = model.cache_spec.state_bytes_per_slot > 0
        capture = None if has_state else capture
        self._batch = Batch(
            *sizes, config.block_size, context.device, fields, for_graph=capture is not None, has_state=has_state
        )
        self._proposer = _proposer(self._batch) if config.max_draft_tokens > 0 else None
        path, vocab_size = Path(config.model_path), model.config.vocab_size
        self._grammar_masks = GrammarMasks(path, vocab_size, config.eos_token_ids)
        self._sampler = Sampler(self._batch, self._grammar_masks, context.backend, processors)
        self._copier = DeviceToHostCopier(context.device)
        num_blocks = _num_blocks(config, model)
        self._check = StepCheck(self._batch, config, num_blocks, vocab_size)
        self._cache = model.allocate_cache(num_blocks, config.block_size, config.max_batch_size)
        self._graphs = None if capture is None else _graphs(config, model, self._cache, capture)
        self.ready = Ready(
            rank=config.rank,
            device=str(context.device),
            dtype=context.dtype_name,
            weight_bytes=model.weight_bytes,
            num_blocks=num_blocks,
            block_size=config.block_size,
            cache=model.cache_spec,
            kernels=context.backend.kernels(context.dtype),
            device_name=torch.cuda.get_device_name(context.device) if context.device.type == "cuda" else "",
        )

    @classmethod
    def load(cls, config: ShardConfig, progress: Callable[[int, int], None]) -> "Runner":
        """Joins the other ranks and reads this rank's slices. Errors are one line and say what to do."""
        torch.set_num_threads(config.num_threads)
        index, num_here = config.rank, config.num_shards
        if config.device_index is not None:
            index, num_here = config.device_index, config.device_index + 1
        device = choose_device(config.device, index, num_here)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where kernels and streams go that are not told
        path = Path(config.model_path)
        model_config = load_config(path, config.hf_overrides)
        meeting = Rendezvous(config.rendezvous, config.interface, config.store_fd)
        parallel = TensorParallel.join(config.rank, config.num_shards, device, meeting)
        context = _model_context(config, parallel, device)
        size = footprint(path, model_config, context.layout)
        check_offload(size, config, device)
        check_memory(size, config, device)
        meter = LoadMeter(progress)
        try:
            model = load_model(path, model_config, context, meter)
            meter.end()
            # Copies take longer than the launches that a graph would save.
            runner = cls(config, model, None if size.host_bytes else _capturer(device))
            link = bytes_per_second(device) if size.host_bytes else 0.0
            runner.ready = meter.completed(runner.ready, size.host_bytes, link)
            if device.type == "cuda":
                runner.warm_up(config)
        except torch.OutOfMemoryError:
            raise ran_out(size, config, device) from None
        # What was loaded is never garbage; a full collection that looked at all of it would delay a step.
        gc.freeze()
        return runner

    def warm_up(self, config: ShardConfig) -> None:
        """Compiles what is compiled at its first use. To be called before any other step, on every rank."""
        for step in warm_up_steps(config):
            self.execute(step)

    def execute(self, step: Step) -> StepResult:
        """Executes one step and waits for its tokens."""
        return self.launch(step).result()

    @torch.inference_mode()
    def launch(self, step: Step) -> PendingStep:
        """Starts one step: applies the delta, runs the model, samples, appends the tokens. Raises WrongStep.

        On CUDA the host waits for the device only where it must: for the previous step's tokens where this one may
        propose draft tokens, and for its own tokens to verify them; for the previous token of a sequence with a
        grammar, once the model is launched; for prompt log-probabilities and `top_n_tokens`; and for the largest k of
        the batch where top-k is applied outside of the fused sampling kernel (`keep_top_k`).
        """
        self._check(step)
        self._grammar_masks.apply(step)
        if (blocks := self._batch.apply(step)) is not None:
            self._cache.copy_blocks(*blocks)
        drafts = self._proposer.propose(step, self._batch) if self._proposer is not None else []
        work = self._batch.forward_input(step, drafts)
        if work is None:
            return PendingStep(step.id, _NO_SLOTS, None, [])
        # Computed before the model runs: on a CPU, the model's weights push Python's data out of the caches.
        used = self._batch.parameters.used(work.sampled)
        logits, prompt_logprobs = self._compute(work)
        if logits is None:
            return PendingStep(step.id, _NO_SLOTS, None, prompt_logprobs)
        sampled = self._sampler(logits, work.sampled, work.lengths, used)
        copy = self._copier.start(sampled)
        slots, lengths, token_ids, num_draft_tokens = work.sampled, work.lengths, sampled.token_ids, 0
        if work.draft_tokens is not None and self._proposer is not None:
            rows = self._proposer.verify(slots, work.draft_tokens, copy.wait().token_ids.numpy())
            copy, num_draft_tokens = copy.select(rows), int((work.draft_tokens >= 0).sum())
            slots, lengths, token_ids = slots[rows], lengths[rows], token_ids[to_device(rows, token_ids.device)]
        self._append(slots, lengths, token_ids, copy)
        return PendingStep(step.id, slots, copy, prompt_logprobs, num_draft_tokens)

    def waits_in(self, step: Step) -> bool:
        """Whether `launch` of this step would wait for the tokens of the steps before it."""
        return self._proposer is not None and self._proposer.proposes_in(step)

    def _append(
        self, slots: NDArray[np.int64], positions: NDArray[np.int64], token_ids: Tensor, copy: PendingCopy
    ) -> None:
        """Appends sampled tokens, on the device and as a host copy, to their sequences."""
        self._batch.append(slots, positions, token_ids)
        if self._grammar_masks.has_any():
            self._grammar_masks.advance(slots, lambda: copy.wait().token_ids.tolist())
        if self._proposer is not None:
            self._proposer.append(slots, positions, copy)

    def _compute(self, work: ForwardInput) -> tuple[Tensor | None, list[PromptLogprobs]]:
        """Logits float32[S, V], None if nothing is sampled; log-probabilities of the prompts that ask for them."""
        if isinstance(work.inputs, GraphDecodeRows):
            assert self._graphs is not None, "only CUDA graphs take GraphDecodeRows"
            return self._graphs(work.inputs), []
        token_ids, paged = work.inputs
        ctx = ForwardContext(paged, self._cache)
        scored = self._batch.parameters.wants_prompt_logprobs(work.slots)
        if len(work.sampled) and not len(scored):
            return self.model.next_logits(token_ids, ctx, work.sample_rows), []
        hidden = self.model.forward(token_ids, ctx)
        prompt_logprobs = self._prompt_logprobs(work, scored, hidden)
        if not len(work.sampled):
            return None, prompt_logprobs
        return self.model.logits(hidden, work.sample_rows), prompt_logprobs

    def _prompt_logprobs(self, work: ForwardInput, scored: Rows, hidden: Tensor) -> list[PromptLogprobs]:
        chunks = []
        rows_end = np.cumsum(work.num_tokens)
        for at in scored.tolist():
            start, end = int(rows_end[at] - work.num_tokens[at]), int(rows_end[at])
            chunks += self._score(int(work.slots[at]), int(work.starts[at]), hidden[start:end])
        return chunks

    def _score(self, slot: int, first: int, hidden: Tensor) -> list[PromptLogprobs]:
        """Prompt log-probabilities: row i of `hidden` scores the token at position first + i + 1, if there is one."""
        chunks, top_n = [], self._batch.parameters[slot].top_n_tokens
        count = min(len(hidden), int(self._batch.prompt_lengths[slot]) - first - 1)
        for start in range(0, count, PROMPT_LOGPROB_ROWS):
            rows = hidden[start : min(start + PROMPT_LOGPROB_ROWS, count)]
            position = first + start + 1
            targets = self._batch.token_ids[slot, position : position + len(rows), None]
            logprobs = self.model.logits(rows).log_softmax(-1)
            chosen = pack_floats(logprobs.gather(-1, targets)[:, 0])
            chunks.append(PromptLogprobs(slot, position, chosen, *_pack_top(logprobs, top_n)))
        return chunks


def _pack_top(logprobs: Tensor, top_n: int) -> tuple[bytes, bytes]:
    """The likeliest tokens of each row of logprobs float32[R, V] and their log-probabilities, as in PromptLogprobs."""
    if not top_n:
        return b"", b""
    values, ids = logprobs.topk(min(top_n, logprobs.shape[-1]))
    return pack(ids.flatten().tolist()), pack_floats(values)


def _proposer(batch: Batch) -> DraftProposer:
    return DraftProposer(HostTokenMirror(batch.token_ids, is_copy=batch.device.type != "cpu"))


def _model_context(config: ShardConfig, parallel: TensorParallel, device: torch.device) -> ModelContext:
    """The kernels and formats that this shard's options come to. Raises ValueError if they do not fit together."""
    backend = backend_for(device, config.kv_cache_dtype)
    context = ModelContext(
        parallel=parallel,
        backend=backend,
        format=load_format(Path(config.model_path), config.quantize, backend),
        device=device,
        dtype=choose_dtype(config.dtype, device),
        kv_dtype=None if config.kv_cache_dtype is None else KV_DTYPES[config.kv_cache_dtype],
        offload_bytes=config.cpu_offload_bytes,
    )
    if context.format.compute_dtype not in (None, context.dtype_name):
        raise ValueError(
            f"{context.format.name} weights compute in {context.format.compute_dtype}: leave --dtype {config.dtype} out"
        )
    return context


def _check_tokens_fit(config: ShardConfig) -> None:
    """Raises ValueError if the batch's token ids alone take more memory than there is: config.json may claim a context
    of millions of tokens."""
    needed = 8 * config.max_batch_size * config.max_total_tokens
    if needed > available_memory():
        raise ValueError(
            f"{config.max_batch_size} sequences of --max-total-tokens {config.max_total_tokens} do not fit into memory"
            ": lower that, which is the context length of config.json by default, or --max-batch-size"
        )


def _num_blocks(config: ShardConfig, model: Model) -> int:
    """Blocks of KV cache: as many as asked for, else as fit the free memory and could ever be used.

    Raises ValueError if the longest request allowed would not fit.
    """
    needed, profile = num_blocks_of(config.max_total_tokens, config.block_size), None
    if config.max_batch_total_tokens is not None:
        blocks = config.max_batch_total_tokens // config.block_size
    else:
        profile = profile_memory(model, config)
        blocks = num_blocks_that_fit(
            model.cache_spec,
            profile.kv_bytes,
            max_batch_size=config.max_batch_size,
            max_total_tokens=config.max_total_tokens,
            block_size=config.block_size,
        )
    if blocks < needed:
        raise ValueError(
            f"the KV cache holds {blocks * config.block_size} tokens, fewer than --max-total-tokens "
            f"{config.max_total_tokens}: lower that, or raise --max-batch-total-tokens if memory allows"
            + ("" if profile is None else profile.describe())
        )
    return blocks


def _capturer(device: torch.device) -> "GraphCapturer | None":
    """The capturer of CUDA graphs, if there is CUDA."""
    if device.type == "cpu":
        return None
    from peregrine_server.execution.cuda_graphs import CudaGraphCapturer

    return CudaGraphCapturer()


def _graphs(config: ShardConfig, model: Model, cache: Cache, capture: "GraphCapturer") -> "DecodeGraphs":
    # Imported here: it imports Triton, which only a GPU's host needs to have.
    from peregrine_server.execution.cuda_graphs import DecodeGraphs, capture_sizes

    sizes = capture_sizes(config.max_batch_size)
    return DecodeGraphs(model, cache, sizes, config.max_total_tokens, config.block_size, capture)
