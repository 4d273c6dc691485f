"""The arithmetic of a device's memory: what is left for the KV cache, and how many blocks that holds. Imports no torch.

A shard sizes its cache by it, with what it measures, and `peregrine plan`, with what it computes.
"""

from dataclasses import dataclass

from peregrine_server.models.interface import Footprint
from peregrine_server.protocol import CacheSpec

CPU_KV_FRACTION = 0.5
"""Share of the free memory, of the machine or the container, that the KV cache may take on a CPU: the rest is for
activations and others."""
GIB = 2**30
SLACK_BYTES = 2**29
"""Bytes left for fragmentation and for what libraries allocate later."""
FEW_ROWS = 256
"""Rows of a step up to which a GPU's linears dequantize nothing: a test holds that this is the kernels' own."""
GRAPH_BRANCHES = 2
"""Parts of a graph that run at once, each with its own scratch."""
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

    @staticmethod
    def of_cpu(available: int, fraction: float, num_shards: int) -> "MemoryProfile":
        """The profile of one of `num_shards` on a CPU with `available` bytes beside their weights."""
        return MemoryProfile(int(available * CPU_KV_FRACTION) // num_shards, fraction, 0, 0, 0, 0)

    @property
    def kv_bytes(self) -> int:
        """The rest, for the KV cache; 0 if there is none."""
        return max(0, int(self.total * self.fraction) - self.used)

    @property
    def used(self) -> int:
        """Everything but the KV cache."""
        return self.others + self.weights + self.activations + self.graphs

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


def graph_bytes(max_batch_size: int, vocab_size: int, scratch_bytes: int = 0) -> int:
    """Bytes of CUDA graphs and of what is allocated later. Each captured size keeps its logits; the sizes add up to
    less than four times the largest. What a step dequantizes in `scratch_bytes` is the graphs' own memory, too."""
    scratch = GRAPH_BRANCHES * scratch_bytes if max_batch_size > FEW_ROWS else 0
    return SLACK_BYTES + 4 * max_batch_size * vocab_size * LOGIT_BYTES + scratch


def num_blocks_of(num_tokens: int, block_size: int) -> int:
    """Blocks of KV cache that a sequence of so many tokens takes."""
    return -(-num_tokens // block_size)


def num_blocks_that_fit(
    spec: CacheSpec, num_bytes: int, *, max_batch_size: int, max_total_tokens: int, block_size: int
) -> int:
    """Blocks of KV cache that `num_bytes` of a device hold beside the state of every slot, but no more than
    `max_batch_size` sequences of `max_total_tokens` could use."""
    tokens = max(num_bytes - max_batch_size * spec.state_bytes_per_slot, 0) // max(spec.kv_bytes_per_token, 1)
    return min(tokens // block_size, max_batch_size * num_blocks_of(max_total_tokens, block_size))


class OutOfMemory(ValueError):
    """The model does not fit. One line that names the numbers and the flags to change."""

    def __init__(self, message: str, free_bytes: int) -> None:
        """`free_bytes`: memory of the device, or of the machine for all its shards on a CPU, that there was for it."""
        super().__init__(message)
        self.free_bytes = free_bytes


def out_of_memory(device: str, total: int, free: int, weights: int, num_shards: int) -> OutOfMemory:
    """The error of a device that `weights` bytes, and what is allocated with them, did not fit."""
    return OutOfMemory(
        f"{device} ran out of memory: it has {total / GIB:.1f} GiB, {free / GIB:.1f} GiB of it free, and the weights "
        f"alone take {weights / GIB:.1f} GiB a shard; use more devices than --num-shard {num_shards}, lower "
        "--max-batch-total-tokens or --max-batch-prefill-tokens, or stop what else uses the device",
        free,
    )


def check_fits(size: Footprint, free: int, *, num_tokens: int, block_size: int, num_shards: int = 1) -> None:
    """Raises OutOfMemory if the weights of `num_shards`, and the KV cache of the longest request on each, take more
    bytes than are free: that is known before any is allocated."""
    tokens = num_blocks_of(num_tokens, block_size) * block_size
    weights, cache = num_shards * size.weight_bytes, num_shards * tokens * size.cache.kv_bytes_per_token
    if weights + cache > free:
        raise OutOfMemory(
            f"too little memory: {free / GIB:.2f} GiB are free, the weights take {weights / GIB:.2f} GiB and the KV "
            f"cache of {num_tokens} tokens {cache / GIB:.2f} GiB: choose another --quantize, a smaller "
            "--max-total-tokens, or use more memory or devices",
            free,
        )
