"""Which kernels a server launches of a model, and which the cache has: a process of its own, without the interpreter.

Does what a GPU's shard does before it is ready, on one layer of the model's shape. Launches are recorded, not made.
Prints {"launched": [kernel, ...], "cached": [kernel, ...]}, each with all that it is compiled for.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "0"

import torch
from transformers import FalconConfig, FalconForCausalLM
from triton import knobs

from checkpoints import PUBLISHED, write_checkpoint
from falcons import load, model_context
from peregrine_kernels.aot.cache import launches, warm
from peregrine_kernels.aot.shapes import SHAPES
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.launch import Launch
from peregrine_server.execution.cuda_graphs import no_capture
from peregrine_server.execution.runner import Runner
from runners import shard_config
from serving import write_byte_tokenizer

CAPABILITY = 80
"""That for which the GPU's backend launches on tensors of a CPU."""
SIZES = {"max_batch_size": 8, "max_total_tokens": 2048, "block_size": 64, "max_batch_total_tokens": 4096}


def main(model: str, folder: Path, quantize: str | None = None) -> None:
    shape = next(shape for shape in SHAPES if shape.name == model)
    cached = {specialization(launch) for launch in launches(shape, CAPABILITY)}
    write_layer(model, folder)
    print(json.dumps({"launched": launched(folder, quantize), "cached": sorted(cached)}))


def write_layer(model: str, folder: Path) -> None:
    """A checkpoint of the model's first layer with whatever is in memory as weights."""
    fields = {**PUBLISHED[model], "num_hidden_layers": 1}
    with torch.device("meta"):
        empty = FalconForCausalLM(FalconConfig(**fields))
    torch.nn.Module.to(empty, torch.bfloat16)
    write_checkpoint(folder, empty.to_empty(device="cpu"))
    write_byte_tokenizer(folder)


def specialization(launch: Launch) -> str:
    """All that Triton's launcher would compile for."""
    found: list[str] = []

    def refuse(*, key: str, fn: Any, **_: object) -> bool:
        found.append(f"{fn.name} {key}")
        return True

    with patch.object(knobs.runtime, "jit_cache_hook", refuse):
        warm(launch, CAPABILITY)
    return found[0]


def launched(folder: Path, quantize: str | None) -> list[str]:
    """Everything that a runner launches as it warms up, on weights as --quantize says."""
    kernels: set[str] = set()

    def record(launch: Launch) -> None:
        kernels.add(specialization(launch))
        for name in {"token_ids", "to_token_ids"} & launch.arguments.keys():
            launch.arguments[name].zero_()  # type: ignore[union-attr]

    config = shard_config(folder, dtype="bfloat16", quantize=quantize, **SIZES)
    with patch.object(Launch, "__call__", record):
        context = model_context(torch.bfloat16, TritonBackend(), quantize=quantize)
        Runner(config, load(folder, context), no_capture).warm_up(config)
    return sorted(kernels)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
