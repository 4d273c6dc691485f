"""The GPUs that the server sees, found without torch."""

import os
from collections.abc import Mapping
from pathlib import Path

from peregrine_router.settings import Settings

DEVICES = Path("/dev")


def runs_on_cpu(settings: Settings) -> bool:
    """Whether the shards will choose a CPU: asked to, or because there is no NVIDIA driver."""
    return settings.device == "cpu" or (settings.device is None and not (DEVICES / "nvidiactl").exists())


def num_shards(settings: Settings) -> int:
    """Number of shards: --num-shard, else one for each visible GPU, as text-generation-launcher does; 1 on a CPU."""
    return settings.num_shard or num_devices(settings)


def num_local_shards(settings: Settings) -> int:
    """Number of shards on this machine: all, but with a shard address those of --local-shards."""
    total = num_shards(settings)
    if settings.shard_address is None:
        return total
    if settings.local_shards is not None:
        return min(total, settings.local_shards)
    return min(total, num_devices(settings))


def num_devices(settings: Settings) -> int:
    """Number of devices of this machine that can have a shard: the visible GPUs, or the one CPU."""
    return 1 if runs_on_cpu(settings) else max(1, visible_gpus(os.environ))


def visible_gpus(environment: Mapping[str, str]) -> int:
    """Number of GPUs that CUDA_VISIBLE_DEVICES names, else NVIDIA_VISIBLE_DEVICES, else that have a device file.

    The container runtime may set the latter to "all" or "void", which name none.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES", environment.get("NVIDIA_VISIBLE_DEVICES", "all"))
    if named.strip() in ("all", "void"):
        return sum(file.name.removeprefix("nvidia").isdecimal() for file in DEVICES.glob("nvidia*"))
    return sum(bool(each.strip()) for each in named.split(","))
