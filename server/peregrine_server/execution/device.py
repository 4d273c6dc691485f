"""The device and dtype of a shard, by what this host has."""

import torch

from peregrine_kernels.native import library

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str, index: int, num_shards: int) -> torch.device:
    """`name` is cpu, cuda or auto, `index` a GPU's among those of `num_shards` shards of this machine.

    Shards share a CPU's cores; raises ValueError if they would have to share a GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda, but this host has no usable CUDA device; use --device cpu")
    if name == "cpu":
        return torch.device(name)
    devices = torch.cuda.device_count()
    if num_shards > devices:
        raise ValueError(f"--num-shard {num_shards}, but this host has {devices} CUDA devices; use at most that many")
    return torch.device(name, index)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`name` is a key of `DTYPES` or auto: bfloat16 where the hardware multiplies it, else float32."""
    if name != "auto":
        return DTYPES[name]
    has_bfloat16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bfloat16()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # mkldnn's own check accepts emulation through AVX512, which is slower than float32.
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return has_instructions or library() is not None
