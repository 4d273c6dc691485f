"""Kinds of weights that are compiled ahead of time: all that a server packs on a GPU."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from bitsandbytes_checkpoints import LAYOUTS as BITSANDBYTES
from checkpoints import build_model, write_checkpoint
from fakes import train_backend
from falcons import load, model_context
from gguf_checkpoints import MIXES, write_gguf
from gptq_awq_checkpoints import Awq, Gptq
from peregrine_kernels.aot.weights import meta_weights, stored_weights
from peregrine_kernels.gpu import linear
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.fragment_order import FragmentWeight, fragment_order
from peregrine_kernels.weights import QuantizedWeight
from peregrine_router.launch.gguf_folder import make_folder
from peregrine_server.models.formats.registry import FORMATS
from peregrine_server.models.registry import load_format
from quantized_checkpoints import LAYOUTS, Layout, StoredLayout, write_quantized

STORED: dict[str, StoredLayout] = {
    **{f"int4 of {size}": Layout("pack-quantized", 4, strategy="group", group_size=size) for size in (32, 64, 128)},
    "int4 of 32 with zeros": Layout("pack-quantized", 4, is_symmetric=False, strategy="group", group_size=32),
    "gptq of 64 with zeros": Gptq(group_size=64, is_symmetric=False),
    "gptq of rows": Gptq(group_size=-1),
    "awq of 32": Awq(group_size=32),
    **{name: LAYOUTS[name] for name in ("int8", "fp8")},
    **BITSANDBYTES,
}
"""Layouts with the sizes of groups that are in use."""

Kind = tuple[Any, ...]


def kind(weight: FragmentWeight) -> Kind:
    """All of a weight that a kernel is compiled for."""
    types = (None if each is None else each.dtype for each in (weight.scales, weight.zeros, weight.table))
    return weight.kind, weight.group_size, *types


def compiled() -> set[Kind]:
    weights = (*meta_weights(64, 128).values(), *stored_weights(64, 128).values())
    return {kind(fragment_order(weight)) for weight in weights}


def packed(path: Path, quantize: str | None) -> set[Kind]:
    """The kinds of a model's linears as the GPU's backend packs them, in bfloat16."""
    found: set[Kind] = set()

    def record(weight: QuantizedWeight) -> FragmentWeight:
        ordered = fragment_order(weight)
        found.add(kind(ordered))
        return ordered

    context = model_context(torch.bfloat16, TritonBackend())
    with patch.object(linear, "fragment_order", record):
        load(path, replace(context, format=load_format(path, quantize, context.backend)))
    return found


def cases() -> Iterator[tuple[str, str]]:
    """(where the weights come from, its name)"""
    yield from (("--quantize", name) for name in FORMATS)
    yield from (("checkpoint", name) for name in STORED)
    yield from (("gguf", name) for name in MIXES if name != "F16")  # Not quantized.


@pytest.mark.parametrize(("source", "name"), [*cases()])
def test_every_kind_of_weight_is_compiled_ahead(source: str, name: str, tmp_path: Path) -> None:
    """Kernels differ by kind, group, and the types of scales, zero points and tables."""
    if source == "--quantize":
        path = write_checkpoint(tmp_path, build_model("11b", torch.bfloat16, num_hidden_layers=1))
    elif source == "checkpoint":
        path = tmp_path
        write_quantized(path, "11b", STORED[name], num_hidden_layers=1)
    else:
        write_gguf(tmp_path / "falcon.gguf", "40b", MIXES[name], tokenizer=train_backend())
        path = make_folder(tmp_path / "falcon.gguf")
    found = packed(path, name if source == "--quantize" else None)
    assert found
    assert found <= compiled()
