"""Falcon-7B's shape with random weights: 13.8 GB of bfloat16 in nine files, as the hub would have them."""

import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.checkpoint import SEED
from benchmarks.vocabulary import make_tokenizer
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.published import PUBLISHED
from peregrine_server.models.falcon.tensors import expected_tensors, file_name
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.loading.tensor_spec import TensorSpec
from peregrine_server.quantization.safetensors_writer import INDEX, SafetensorsWriter, split, write_index

END_OF_TEXT_ID = 11
CONFIG = {
    "architectures": ["FalconForCausalLM"],
    **PUBLISHED["tiiuae/falcon-7b"],
    # Written out: transformers 5 and its readers otherwise take the head count.
    "num_kv_heads": 1,
    "bos_token_id": END_OF_TEXT_ID,
    "eos_token_id": END_OF_TEXT_ID,
    "torch_dtype": "bfloat16",
}
FILE_BYTES = 1_650_000_000
NUM_DRAWN = 2**27
"""Random numbers that all matrices are cut from, each beginning elsewhere: drawing all 6.9e9 takes minutes."""
STRIDE = 7_654_321
"""Numbers between the beginnings of two matrices."""


def make_falcon_7b(path: Path) -> FalconConfig:
    """Writes the model to `path` unless it is there, its index last; returns its config."""
    config = FalconConfig.from_hf(CONFIG)
    if (path / INDEX).exists():
        return config
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG, indent=2))
    make_tokenizer(path, config.vocab_size, END_OF_TEXT_ID)
    specs = expected_tensors(config, DenseFormat())
    parts = split({file_name(name): TensorSpec(spec.shape, ("BF16",)) for name, spec in specs.items()}, FILE_BYTES)
    files = {f"model-{number:05}-of-{len(parts):05}.safetensors": part for number, part in enumerate(parts, start=1)}
    drawn = torch.randn(NUM_DRAWN, generator=torch.Generator().manual_seed(SEED)).mul_(0.02).bfloat16()
    for file, part in tqdm(files.items(), desc="making Falcon-7B's shape", leave=False):
        (path / file).unlink(missing_ok=True)
        with SafetensorsWriter(path / file, part) as writer:
            for number, (name, spec) in enumerate(part.items()):
                writer.write(name, values(name, spec.shape, drawn.roll(-STRIDE * number)))
    write_index(path, files)
    return config


def values(name: str, shape: tuple[int, ...], drawn: Tensor) -> Tensor:
    """A matrix of drawn numbers, again from their beginning if it has more; LayerNorms are the identity."""
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith(".weight")), dtype=torch.bfloat16)
    count = shape[0] * shape[1]
    return drawn.repeat(-(-count // len(drawn)))[:count].view(shape)
