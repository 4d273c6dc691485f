"""Quantized checkpoints that are changed after they were written, and what loading them says."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from checkpoints import write_tensors
from falcons import load, model_context
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.loading.weights import Progress
from peregrine_server.models.registry import load_format

AT = "transformer.h.1.mlp.dense_4h_to_h"
"""The linear that is changed."""
Change = Callable[[dict[str, Tensor]], object]
"""Changes tensors in place."""


def load_quantized(
    path: Path, quantize: str | None = None, parallel: TensorParallel | None = None, progress: Progress | None = None
) -> Falcon:
    """The model in float32."""
    backend = ReferenceBackend()
    context = model_context(torch.float32, backend, parallel=parallel)
    return load(path, replace(context, format=load_format(path, quantize, backend)), progress)


def failure(path: Path, parallel: TensorParallel | None = None) -> str:
    """The one-line error of loading from `path`, raised before a tensor of the model is read."""
    reports: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        load_quantized(path, parallel=parallel, progress=lambda *reported: reports.append(reported))
    assert not reports
    return str(caught.value)


def refusal(read_scheme: Callable[[Mapping[str, Any]], object], settings: Mapping[str, Any]) -> str:
    """The one-line error of settings that are not read."""
    with pytest.raises(UnsupportedModel) as caught:
        read_scheme(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, change: Change) -> None:
    """Writes the checkpoint anew with other tensors."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    write_tensors(path, tensors)


def set_setting(path: Path, key: str, value: object) -> None:
    """Writes another value of a key of `quantization_config`."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"][key] = value
    file.write_text(json.dumps(config))


def set_first(kind: str, value: float) -> Change:
    """A change of the first element of a tensor of the linear at AT."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"{AT}.{kind}"].view(-1)[0] = value

    return change


def replaced(kind: str, tensor: Tensor) -> Change:
    """Another tensor of the linear at AT."""
    return lambda tensors: tensors.update({f"{AT}.{kind}": tensor})


def progress_of(path: Path) -> list[tuple[int, int]]:
    """The reports (bytes loaded, bytes in all) of loading from `path`."""
    reports: list[tuple[int, int]] = []
    load_quantized(path, progress=lambda *reported: reports.append(reported))
    return reports
