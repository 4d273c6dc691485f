"""Quantized checkpoints of every layout on the CPU's own kernels."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bitsandbytes_checkpoints import LAYOUTS as BITSANDBYTES
from checkpoints import build_model, write_checkpoint
from cpu_backends import native
from falcons import load, model_context
from gptq_awq_checkpoints import INPUT_MAJOR, Awq, Gptq
from held_bytes import held_bytes
from lying_checkpoints import failure
from peregrine_server.models.falcon.model import Falcon, SplitBlock
from peregrine_server.models.registry import load_format
from quantized_checkpoints import LAYOUTS, Layout, StoredLayout, write_quantized

PACKED: dict[str, StoredLayout] = {
    "int4 of 32": Layout("pack-quantized", 4, strategy="group", group_size=32),
    "int4 of 32 with zeros": Layout("pack-quantized", 4, is_symmetric=False, strategy="group", group_size=32),
    "gptq of 64": Gptq(group_size=64),
    "gptq of 64 with zeros": Gptq(group_size=64, is_symmetric=False),
    "awq of 32": Awq(group_size=32),
}
"""Layouts of 4 bits in groups that the CPU's kernels take; those of 16 are dequantized."""
CHECKPOINTS: dict[str, StoredLayout] = {**LAYOUTS, **INPUT_MAJOR, **BITSANDBYTES, **PACKED}


@native
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_cpus_kernels_multiply_what_the_checkpoint_stands_for(name: str, tmp_path: Path) -> None:
    """An MLP's outputs differ from transformers' by what rounding inputs to 8 bits adds, some hundredths of their
    deviation; the tensors have the bytes that were computed."""
    oracle = write_quantized(tmp_path, "11b", CHECKPOINTS[name], vocab_size=320, num_hidden_layers=1)
    model = load_on_cpu(tmp_path)
    block = model.blocks[0]
    assert isinstance(block, SplitBlock)
    x = torch.randn(7, 128, generator=torch.Generator().manual_seed(0))
    up, down = (getattr(oracle.transformer.h[0].mlp, f"dense_{each}") for each in ("h_to_4h", "4h_to_h"))
    with torch.inference_mode():
        found = block.down(block.up(x.bfloat16())).float()
        expected = down(torch.nn.functional.gelu(up(x)))
    assert (found - expected).abs().mean() < 0.05 * expected.std()
    assert held_bytes(model) - held_bytes(model.rotary, model.context) == model.weight_bytes


def load_on_cpu(path: Path) -> Falcon:
    """The model in bfloat16."""
    context = model_context(torch.bfloat16)
    return load(path, replace(context, format=load_format(path, None, context.backend)))


@pytest.mark.parametrize("name", ["int4", "int8", "fp8", "gptq", "awq", "bitsandbytes int8", "bitsandbytes nested nf4"])
def test_a_file_that_ends_in_the_middle_is_named(name: str, tmp_path: Path) -> None:
    """Whatever its layout, before a tensor is read."""
    write_quantized(tmp_path, "7b", CHECKPOINTS[name])
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    error = failure(tmp_path)
    assert error.startswith(f"{file} is truncated")
    assert error.endswith("; download it again")


@pytest.mark.parametrize("name", ["int4", "int8", "gptq", "awq", "bitsandbytes int8", "bitsandbytes nested nf4"])
def test_linears_that_are_not_quantized_are_named(name: str, tmp_path: Path) -> None:
    """transformers 5 writes settings of bitsandbytes beside Falcons whose linears it has left in 16 bits."""
    write_checkpoint(tmp_path, build_model("7b", torch.bfloat16))
    file = tmp_path / "config.json"
    config = {**json.loads(file.read_text()), "quantization_config": CHECKPOINTS[name].quantization_config()}
    file.write_text(json.dumps(config))
    remedy = "h.0.mlp.dense_4h_to_h.weight is not quantized: if none is, leave quantization_config out of config.json"
    assert remedy in failure(tmp_path)


@pytest.mark.parametrize(
    ("name", "quantize"),
    [("gptq", "awq"), ("awq", "gptq"), ("int4", "bitsandbytes-fp4"), ("fp8", "int8"), ("bitsandbytes nf4", "gptq")],
)
def test_another_kind_than_the_checkpoints_is_refused(name: str, quantize: str, tmp_path: Path) -> None:
    """In one line that says what the weights are, and what to do."""
    write_quantized(tmp_path, "7b", CHECKPOINTS[name])
    with pytest.raises(ValueError, match=rf"^--quantize {quantize}: the checkpoint's [^\n]* already: leave it out$"):
        load_format(tmp_path, quantize)
