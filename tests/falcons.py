"""Falcons loaded for a test without a shard around them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from peregrine_kernels import Backend, KVCache, PagedBatch, backend_for
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.load import check_weights, load_falcon
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.falcon.tensors import PREFIX
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.registry import weight_format
from peregrine_server.models.interface import ForwardContext, ModelContext
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import Progress, Weights
from peregrine_server.models.registry import load_config

CPU = torch.device("cpu")


def falcon_config(path: Path) -> FalconConfig:
    """The config of the Falcon in a folder."""
    config = load_config(path)
    assert isinstance(config, FalconConfig)
    return config


def model_context(
    dtype: torch.dtype,
    backend: Backend | None = None,
    *,
    device: torch.device = CPU,
    parallel: TensorParallel | None = None,
    quantize: str | None = None,
    kv_dtype: torch.dtype | None = None,
) -> ModelContext:
    """A context of the device's own backend, if none is given."""
    backend = backend or backend_for(device)
    return ModelContext(
        parallel=parallel or TensorParallel(),
        backend=backend,
        format=weight_format(quantize, backend),
        device=device,
        dtype=dtype,
        kv_dtype=kv_dtype,
    )


def load(path: Path, context: ModelContext, progress: Progress | None = None) -> Falcon:
    """The Falcon in a folder."""
    return load_falcon(path, falcon_config(path), context, progress)


def forward(model: Falcon, token_ids: Tensor, batch: PagedBatch, cache: KVCache) -> Tensor:
    """Hidden states [T, H] of a step without adapters."""
    return model.forward(token_ids, ForwardContext(batch, cache))


def open_weights(
    path: Path, dtype: torch.dtype, progress: Progress | None = None, config: FalconConfig | None = None
) -> tuple[Weights, FalconConfig]:
    """The tensors of a Falcon's checkpoint, each accounted for, and the config that they confirm."""
    weights = Weights(path, CPU, dtype, progress, prefix=PREFIX)
    return weights, check_weights(weights, config or falcon_config(path), DenseFormat())[0]


def failure(path: Path) -> str:
    """The one-line error of loading from `path`."""
    with pytest.raises(CheckpointError) as caught:
        load(path, model_context(torch.float32))
    assert "\n" not in str(caught.value)
    return str(caught.value)
