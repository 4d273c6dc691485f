"""The memory that is left for the KV cache beside weights, activations and CUDA graphs.

On CUDA the largest step is run once and its peak measured, since nothing predicts an allocator; what is left of the
device, less what graphs and others take, is the cache's.
"""

from dataclasses import dataclass

import psutil
import torch

from peregrine_kernels import PagedBatch
from peregrine_server.models.interface import ForwardContext, Model
from peregrine_server.protocol import ShardConfig

CPU_KV_FRACTION = 0.5
"""Share of the host's free memory that the KV cache may take on a CPU: the rest is for activations and others."""
GIB = 2**30
SLACK_BYTES = 2**29
"""Bytes left for fragmentation and for what libraries allocate later."""
LOGIT_BYTES = 4 + 2 + 4
"""Bytes of one logit in a graph's output, in the head's, and in the sampler's copy."""


@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """Bytes of one device's memory."""

    total: int
    fraction: float
    """The part of `total` that this shard may use: --cuda-memory-fraction."""
    others: int
    """Other processes, and what CUDA itself takes."""
    weights: int
    activations: int
    """The peak of the largest step, beyond the weights."""
    graphs: int
    """CUDA graphs' memory, fragmentation, and later allocations of libraries."""

    @property
    def kv_bytes(self) -> int:
        """The rest, for the KV cache; 0 if there is none."""
        used = self.others + self.weights + self.activations + self.graphs
        return max(0, int(self.total * self.fraction) - used)

    def describe(self) -> str:
        """Where the memory went, to be appended to an error; empty on a CPU, where nothing is measured."""
        if not self.weights:
            return ""
        return (
            f" (of {self.total / GIB:.1f} GiB x --cuda-memory-fraction {self.fraction}, weights take "
            f"{self.weights / GIB:.1f} GiB, the largest step {self.activations / GIB:.1f} GiB, CUDA graphs "
            f"{self.graphs / GIB:.1f} GiB, others {self.others / GIB:.1f} GiB; a smaller --max-batch-prefill-tokens "
            "makes steps smaller)"
        )


class OutOfMemory(ValueError):
    """The model does not fit. One line that names the numbers and the flags to change."""

    @staticmethod
    def of(weight_bytes: int, num_shards: int, device: torch.device) -> "OutOfMemory":
        """The error of a shard on CUDA `device`, whose weights are to take so many bytes."""
        free, total = torch.cuda.mem_get_info(device)
        return OutOfMemory(out_of_memory(str(device), total, free, weight_bytes, num_shards))


def out_of_memory(device: str, total: int, free: int, weights: int, num_shards: int) -> str:
    """The message of a device that `weights` bytes, and what is allocated with them, did not fit."""
    return (
        f"{device} ran out of memory: it has {total / GIB:.1f} GiB, {free / GIB:.1f} GiB of it free, and the weights "
        f"alone take {weights / GIB:.1f} GiB a shard; use more devices than --num-shard {num_shards}, lower "
        "--max-batch-total-tokens or --max-batch-prefill-tokens, or stop what else uses the device"
    )


def profile_memory(model: Model, config: ShardConfig) -> MemoryProfile:
    """The profile of this shard, once its weights are loaded."""
    device = model.context.device
    if device.type == "cpu":
        available = int(psutil.virtual_memory().available * CPU_KV_FRACTION) // config.num_shards
        return MemoryProfile(available, config.memory_fraction, 0, 0, 0, 0)
    weights = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run_largest_step(model, config)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    # Each captured size keeps its logits; the sizes add up to less than four times the largest.
    graphs = SLACK_BYTES + 4 * config.max_batch_size * model.config.vocab_size * LOGIT_BYTES
    return MemoryProfile(total, config.memory_fraction, others, weights, peak - weights, graphs)


@torch.inference_mode()
def run_largest_step(model: Model, config: ShardConfig) -> None:
    """Runs one chunk of the most tokens that a step may have, and the most logits, on a cache of one block."""
    num_tokens, device = config.max_step_tokens, model.context.device
    cache = model.allocate_cache(1, config.block_size, num_slots=1)
    positions = torch.arange(num_tokens, device=device)
    batch = PagedBatch(
        positions=positions,
        slot_mapping=positions % config.block_size,
        block_tables=torch.zeros((1, -(-num_tokens // config.block_size)), dtype=torch.int64, device=device),
        query_lengths=(num_tokens,),
        context_lengths=(num_tokens,),
        num_decodes=0,
        slots=torch.zeros(1, dtype=torch.int64, device=device) if model.cache_spec.state_bytes_per_slot else None,
    )
    hidden = model.forward(torch.zeros_like(positions), ForwardContext(batch, cache))
    model.logits(hidden[: config.max_batch_size]).softmax(-1)
