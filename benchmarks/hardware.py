"""A step's least time at the hardware's limits: bytes over bandwidth or operations over peak, whichever is longer."""

from collections.abc import Sequence
from dataclasses import dataclass

from peregrine_router.hardware import DEVICES as KNOWN_DEVICES


@dataclass(frozen=True, slots=True)
class Device:
    """A device's peaks: memory bandwidth, and dense multiplication of bfloat16, and of fp8 if it has that."""

    name: str
    bytes_per_second: float
    flops_per_second: float
    memory_bytes: float
    overhead: float = 0.0
    """Seconds of every step beyond memory and arithmetic: launches, sampling, the router's part."""
    fp8_flops_per_second: float = 0.0


DEVICES = tuple(
    Device(each.cuda_name, *each.roof[:2], each.gigabytes * 1e9, 2e-3, each.roof.fp8_flops_per_second)
    for each in KNOWN_DEVICES
    if each.name in ("a10g", "a100-80g", "h100", "h200") and each.roof
)
"""Devices that steps are modelled on."""


@dataclass(frozen=True, slots=True)
class Model:
    """A Falcon in bfloat16, as its GEMMs see it."""

    name: str
    layer_parameters: float
    """Parameters of all layers, multiplied with every token."""
    head_parameters: float
    """Parameters of the output head, multiplied where a token is sampled."""
    kv_bytes_per_token: float
    bytes_per_parameter: float = 2.0

    @classmethod
    def of(
        cls,
        name: str,
        *,
        hidden: int,
        layers: int,
        heads: int,
        kv_heads: int,
        vocab: int,
        bytes_per_parameter: float = 2,
    ) -> "Model":
        """A Falcon with parallel attention and a fourfold MLP, as every one from 7B on; K and V in bfloat16."""
        head_dim = hidden // heads
        layer = hidden * (heads + 2 * kv_heads) * head_dim + hidden * hidden + 8 * hidden * hidden
        return cls(name, layers * layer, hidden * vocab, layers * kv_heads * head_dim * 4, bytes_per_parameter)

    @property
    def weight_bytes(self) -> float:
        return (self.layer_parameters + self.head_parameters) * self.bytes_per_parameter

    def flops(self, num_tokens: int, num_sampled: int) -> float:
        """Floating-point operations: two for each parameter a token is multiplied with."""
        return 2 * (num_tokens * self.layer_parameters + num_sampled * self.head_parameters)


FALCON_1B = Model.of("falcon-1b", hidden=2048, layers=24, heads=32, kv_heads=1, vocab=65024)
"""The benchmark's own model (benchmarks/checkpoint.py)."""
FALCON_7B = Model.of("falcon-7b", hidden=4544, layers=32, heads=71, kv_heads=1, vocab=65024)
FALCON_40B = Model.of("falcon-40b", hidden=8192, layers=60, heads=128, kv_heads=8, vocab=65024)


def step_seconds(device: Device, model: Model, num_tokens: int, num_sampled: int, context_tokens: int) -> float:
    """Least seconds of a step of `num_tokens` that samples for `num_sampled` sequences and reads K and V of
    `context_tokens`."""
    num_bytes = model.weight_bytes + context_tokens * model.kv_bytes_per_token
    computing = model.flops(num_tokens, num_sampled) / device.flops_per_second
    return max(num_bytes / device.bytes_per_second, computing) + device.overhead


def load_seconds(device: Device, model: Model, requests: Sequence[tuple[int, int]], shared_prefix: int = 0) -> float:
    """Least seconds for simultaneous requests of (prompt, generated) tokens: prompts at peak, a shared prefix computed
    once, then steps that each decode all running requests."""
    prompts = sum(prompt for prompt, _ in requests) - (len(requests) - 1) * shared_prefix
    seconds = model.flops(prompts, len(requests)) / device.flops_per_second
    for position in range(1, max(generated for _, generated in requests)):
        running = [prompt + position for prompt, generated in requests if generated > position]
        seconds += step_seconds(device, model, len(running), len(running), sum(running))
    return seconds
