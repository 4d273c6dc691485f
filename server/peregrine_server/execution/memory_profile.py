"""The memory that is left for the KV cache beside weights, activations and CUDA graphs, as a shard measures it.

On CUDA the largest step is run once and its peak measured, since nothing predicts an allocator; what is left of the
device, less what graphs and others take, is the cache's.
"""

from pathlib import Path

import torch

from peregrine_kernels import PagedBatch
from peregrine_server.container import available_memory
from peregrine_server.execution.memory_budget import (
    GIB,
    MemoryProfile,
    OutOfMemory,
    check_fits,
    graph_bytes,
    num_blocks_of,
    out_of_memory,
)
from peregrine_server.models.interface import Footprint, ForwardContext, Model
from peregrine_server.models.registry import footprint
from peregrine_server.protocol import ShardConfig


def check_offload(size: Footprint, config: ShardConfig, device: torch.device) -> None:
    """Raises ValueError if weights are to stay in the host's memory and cannot. To be called before they are loaded."""
    if not config.cpu_offload_bytes:
        return
    if device.type == "cpu":
        raise ValueError("--cpu-offload-gb is for GPUs: on a CPU all weights are in its memory; leave it out")
    if not size.host_bytes:
        raise ValueError("--cpu-offload-gb: the model has too few layers to keep some elsewhere; leave it out")
    needed, free = _num_here(config) * size.host_bytes, available_memory()
    if needed > free:
        raise ValueError(
            f"--cpu-offload-gb keeps {needed / GIB:.1f} GiB of weights in the host's memory, of which "
            f"{free / GIB:.1f} GiB are free: lower it"
        )


def check_memory(size: Footprint, config: ShardConfig, device: torch.device) -> None:
    """Raises OutOfMemory if a model of that `size` cannot fit. To be called before its weights are loaded."""
    num_shards = 1
    if device.type == "cpu":
        free, num_shards = available_memory(), _num_here(config)
    else:
        unused, total = torch.cuda.mem_get_info(device)
        free = max(0, unused - total + int(total * config.memory_fraction))
    tokens = config.max_batch_total_tokens or config.max_total_tokens
    check_fits(size, free, num_tokens=tokens, block_size=config.block_size, num_shards=num_shards)


def _num_here(config: ShardConfig) -> int:
    """Shards that share this machine's memory: all, or at least this one where some are on other machines."""
    return 1 if config.rendezvous.startswith("tcp://") else config.num_shards


def ran_out(size: Footprint, config: ShardConfig, device: torch.device) -> OutOfMemory:
    """The error of a shard on CUDA `device` whose allocations failed."""
    free, total = torch.cuda.mem_get_info(device)
    return out_of_memory(str(device), total, free, size.weight_bytes, config.num_shards)


def profile_memory(model: Model, config: ShardConfig) -> MemoryProfile:
    """The profile of this shard, once its weights are loaded."""
    device = model.context.device
    if device.type == "cpu":
        return MemoryProfile.of_cpu(available_memory(), config.memory_fraction, config.num_shards)
    weights = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run_largest_step(model, config)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    scratch = footprint(Path(config.model_path), model.config, model.context.layout).scratch_bytes
    graphs = graph_bytes(config.max_batch_size, model.config.vocab_size, scratch)
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
        block_tables=torch.zeros((1, num_blocks_of(num_tokens, config.block_size)), dtype=torch.int64, device=device),
        query_lengths=(num_tokens,),
        context_lengths=(num_tokens,),
        num_decodes=0,
        slots=torch.zeros(1, dtype=torch.int64, device=device) if model.cache_spec.state_bytes_per_slot else None,
    )
    hidden = model.forward(torch.zeros_like(positions), ForwardContext(batch, cache))
    model.logits(hidden[: config.max_batch_size]).softmax(-1)
