"""How much memory is left for the KV cache once everything else has been given its share.

On CUDA the largest step is run once and its peak measured, since nothing predicts an allocator; what is left of the
device, less what graphs and others take, is the cache's.
"""

from dataclasses import dataclass

import psutil
import torch

from peregrine_kernels import PagedBatch
from peregrine_server.models.falcon import footprint as memory
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.protocol import ShardConfig

CPU_KV_FRACTION = 0.5
"""Share of the host's free memory that the KV cache may take on a CPU: the rest is for activations and others."""
GIB = 2**30
SLACK_BYTES = 2**29
LOGIT_BYTES = 4 + 2 + 4
"""Of one logit in a graph's output, in the head's, and in what the sampler makes of it."""


@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """Bytes of one device's memory."""

    total: int
    fraction: float
    """Of `total` that this shard may use: --cuda-memory-fraction."""
    others: int
    """Other processes, and what CUDA itself takes."""
    weights: int
    activations: int
    """The most that the largest step took beyond the weights."""
    graphs: int
    """What CUDA graphs keep, and what fragments and libraries take later."""

    @property
    def kv_bytes(self) -> int:
        """What is left, or nothing."""
        used = self.others + self.weights + self.activations + self.graphs
        return max(0, int(self.total * self.fraction) - used)


class OutOfMemory(ValueError):
    """The model does not fit. One line that names the numbers and the flags to change."""

    @staticmethod
    def of(model: FalconConfig, config: ShardConfig, dtype: torch.dtype, device: torch.device) -> "OutOfMemory":
        """The error of a shard on CUDA `device`."""
        free, total = torch.cuda.mem_get_info(device)
        weights = memory.weight_bytes(model, config.num_shards, str(dtype).removeprefix("torch."))
        return OutOfMemory(out_of_memory(str(device), total, free, weights, config.num_shards))


def out_of_memory(device: str, total: int, free: int, weights: int, num_shards: int) -> str:
    """What to say where `weights` bytes, and what is allocated with them, did not fit."""
    return (
        f"{device} ran out of memory: it has {total / GIB:.1f} GiB, {free / GIB:.1f} GiB of it free, and the weights "
        f"alone take {weights / GIB:.1f} GiB a shard; use more devices than --num-shard {num_shards}, lower "
        "--max-batch-total-tokens or --max-batch-prefill-tokens, or stop what else uses the device"
    )


def describe_profile(room: MemoryProfile) -> str:
    """Where the memory went, to be appended to an error."""
    if not room.weights:
        return ""
    return (
        f" (of {room.total / GIB:.1f} GiB x --cuda-memory-fraction {room.fraction}, weights take "
        f"{room.weights / GIB:.1f} GiB, the largest step {room.activations / GIB:.1f} GiB, CUDA graphs "
        f"{room.graphs / GIB:.1f} GiB, others {room.others / GIB:.1f} GiB; a smaller --max-batch-prefill-tokens makes "
        "steps smaller)"
    )


def profile_memory(model: Falcon, config: ShardConfig) -> MemoryProfile:
    """Of this shard, now that its weights are loaded."""
    if model.device.type == "cpu":
        available = int(psutil.virtual_memory().available * CPU_KV_FRACTION) // config.num_shards
        return MemoryProfile(available, config.memory_fraction, 0, 0, 0, 0)
    weights = torch.cuda.memory_allocated(model.device)
    torch.cuda.reset_peak_memory_stats(model.device)
    run_largest_step(model, config)
    torch.cuda.synchronize(model.device)
    peak = torch.cuda.max_memory_allocated(model.device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(model.device)
    others = total - free - torch.cuda.memory_reserved(model.device)
    # Each rung's logits stay where they are; rungs add up to less than four times the largest.
    graphs = SLACK_BYTES + 4 * config.max_batch_size * model.config.vocab_size * LOGIT_BYTES
    return MemoryProfile(total, config.memory_fraction, others, weights, peak - weights, graphs)


@torch.inference_mode()
def run_largest_step(model: Falcon, config: ShardConfig) -> None:
    """One chunk of as many tokens as a step may have, and logits for as many sequences, on a cache of one block."""
    num_tokens, device = config.max_step_tokens, model.device
    kv = model.allocate_kv_cache(1, config.block_size)
    positions = torch.arange(num_tokens, device=device)
    batch = PagedBatch(
        positions=positions,
        slot_mapping=positions % config.block_size,
        block_tables=torch.zeros((1, -(-num_tokens // config.block_size)), dtype=torch.int64, device=device),
        query_lengths=(num_tokens,),
        context_lengths=(num_tokens,),
        num_decodes=0,
    )
    hidden = model.forward(torch.zeros_like(positions), batch, kv)
    model.logits(hidden[: config.max_batch_size]).softmax(-1)
