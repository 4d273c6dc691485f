"""One deployment of a model: its memory on each device, and what is left for the KV cache."""

import shlex
from dataclasses import dataclass
from functools import cached_property

from peregrine_router.hardware import GIB, Device
from peregrine_router.options.batching import STEP_TOKENS
from peregrine_router.planning.devices import CPU
from peregrine_router.planning.models import PlannedModel
from peregrine_router.settings import Settings
from peregrine_server.execution.memory_budget import (
    CPU_KV_FRACTION,
    LOGIT_BYTES,
    MemoryProfile,
    graph_bytes,
    num_blocks_of,
    num_blocks_that_fit,
)
from peregrine_server.models.formats.interface import ALL_KERNELS, CPU_KERNELS, WeightFormat
from peregrine_server.models.formats.registry import weight_format
from peregrine_server.models.interface import Footprint, Layout

BLOCK_SIZE: int = Settings.model_fields["block_size"].default
MAX_BATCH_SIZE: int = Settings.model_fields["max_concurrent_requests"].default
"""Maximum running sequences, unless configured."""
DRIVER_BYTES = 2**29
"""Bytes of a GPU for CUDA's context, the kernels, and cuBLAS's workspace. An estimate: drivers differ by some hundred
MiB."""
NCCL_BYTES = 2**28
"""Bytes of each GPU for the buffers between several. An estimate, too."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model on devices of one kind."""

    model: PlannedModel
    device: Device
    num_shards: int = 1
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    cpu_offload_gb: float = 0.0
    """GiB of each device's weights that stay in the host's memory."""
    max_total_tokens: int
    """Tokens of the longest request, its answer included."""

    @property
    def is_on_cpu(self) -> bool:
        return self.device.name == CPU

    @cached_property
    def format(self) -> WeightFormat:
        """Raises ValueError if the checkpoint is quantized, and not as `quantize` says."""
        kernels = CPU_KERNELS if self.is_on_cpu else ALL_KERNELS
        of = self.model.stored or weight_format
        return of(self.quantize, kernels)

    @property
    def dtype(self) -> str:
        """The type that the server chooses there."""
        return self.format.compute_dtype or self.device.dtype

    @property
    def weights(self) -> str:
        """The weight format in a word."""
        return self.format.name if self.model.stored else self.quantize or self.dtype

    @property
    def layout(self) -> Layout:
        return Layout(
            num_ranks=self.num_shards,
            dtype=self.dtype,
            format=self.format,
            has_8_bit_kv=self.kv_cache_dtype is not None,
            packs_weights=self.is_on_cpu,
            concatenates=not self.is_on_cpu,
            offload_bytes=int(self.cpu_offload_gb * GIB),
        )

    @property
    def command(self) -> str:
        """The line that serves it."""
        options = {
            "--model-id": self.model.name,
            "--device": CPU if self.is_on_cpu else None,
            "--num-shard": self.num_shards,
            "--dtype": None if self.dtype == "bfloat16" or self.format.compute_dtype else self.dtype,
            "--quantize": self.quantize,
            "--kv-cache-dtype": self.kv_cache_dtype,
            "--cpu-offload-gb": f"{self.cpu_offload_gb:g}" if self.cpu_offload_gb else None,
            "--max-total-tokens": (
                None if self.max_total_tokens == self.model.config.max_positions else self.max_total_tokens
            ),
        }
        given = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        return shlex.join(["peregrine", "serve", *given])


@dataclass(frozen=True, slots=True)
class Plan:
    """Memory that a deployment takes, and the cache that fits beside it. Bytes are of a device, unless said of all
    shards."""

    deployment: Deployment
    footprint: Footprint
    profile: MemoryProfile
    num_blocks: int
    """Blocks of KV cache, as the server would allocate them."""

    @staticmethod
    def of(deployment: Deployment) -> "Plan":
        """The plan of a deployment."""
        footprint = deployment.model.footprint(deployment.layout)
        profile = _cpu_profile(deployment, footprint) if deployment.is_on_cpu else _gpu_profile(deployment, footprint)
        num_blocks = num_blocks_that_fit(
            footprint.cache,
            profile.kv_bytes,
            max_batch_size=MAX_BATCH_SIZE,
            max_total_tokens=deployment.max_total_tokens,
            block_size=BLOCK_SIZE,
        )
        return Plan(deployment, footprint, profile, num_blocks)

    @property
    def weight_bytes(self) -> int:
        """Bytes on all shards."""
        return self.footprint.weight_bytes * self.deployment.num_shards

    @property
    def host_bytes(self) -> int:
        """Bytes of weights in the host's memory, of all shards."""
        return self.footprint.host_bytes * self.deployment.num_shards

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes on all shards."""
        return self.footprint.cache.kv_bytes_per_token * self.deployment.num_shards

    @property
    def kv_tokens(self) -> int:
        return self.num_blocks * BLOCK_SIZE

    @property
    def kv_bytes(self) -> int:
        return self.kv_tokens * self.footprint.cache.kv_bytes_per_token

    @property
    def num_requests(self) -> int:
        """Requests of the longest kind whose K and V fit at once."""
        return self.num_blocks // num_blocks_of(self.deployment.max_total_tokens, BLOCK_SIZE)

    @property
    def fits(self) -> bool:
        """Whether the server would start: one longest request has room."""
        return self.num_requests > 0

    @property
    def needed_bytes(self) -> int:
        """The least memory of a device on which it fits; of all shards on a CPU, which share it."""
        blocks = num_blocks_of(self.deployment.max_total_tokens, BLOCK_SIZE)
        longest = blocks * BLOCK_SIZE * self.footprint.cache.kv_bytes_per_token
        if self.deployment.is_on_cpu:
            return self.weight_bytes + int(longest * self.deployment.num_shards / CPU_KV_FRACTION)
        return self.profile.used + longest


def _cpu_profile(deployment: Deployment, footprint: Footprint) -> MemoryProfile:
    available = deployment.device.memory_bytes - deployment.num_shards * footprint.weight_bytes
    return MemoryProfile.of_cpu(available, 1.0, deployment.num_shards)


def _gpu_profile(deployment: Deployment, footprint: Footprint) -> MemoryProfile:
    vocab_size, block_bytes = deployment.model.config.vocab_size, BLOCK_SIZE * footprint.cache.kv_bytes_per_token
    step = footprint.scratch_bytes + STEP_TOKENS["cuda"] * footprint.activation_bytes_per_token
    logits = MAX_BATCH_SIZE * vocab_size * LOGIT_BYTES
    return MemoryProfile(
        total=deployment.device.memory_bytes,
        fraction=1.0,
        others=DRIVER_BYTES + (NCCL_BYTES if deployment.num_shards > 1 else 0),
        weights=footprint.weight_bytes,
        activations=block_bytes + max(step, logits),
        graphs=graph_bytes(MAX_BATCH_SIZE, vocab_size, footprint.scratch_bytes),
    )
