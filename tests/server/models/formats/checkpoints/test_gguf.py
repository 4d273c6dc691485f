"""Linears of GGUF files: in what form they are kept, their sizes and settings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cpu_backends import native
from fakes import train_backend
from falcons import CPU, falcon_config, load, model_context
from gguf_checkpoints import MIXES, mix, write_gguf
from held_bytes import held_bytes
from lying_checkpoints import failure, load_quantized, refusal, set_setting
from peregrine_kernels.weights import Int4Weight
from peregrine_router.launch.gguf_folder import make_folder
from peregrine_server.models.falcon.footprint import footprint
from peregrine_server.models.falcon.gguf import FalconGguf
from peregrine_server.models.formats.checkpoints.gguf import GgufFormat
from peregrine_server.models.formats.checkpoints.gguf_reader import with_zeros
from peregrine_server.models.formats.checkpoints.gguf_types import quantization_config, read_packings, read_types
from peregrine_server.models.formats.interface import ALL_KERNELS, CPU_KERNELS
from peregrine_server.models.formats.packing import DENSE, INT8, Packing
from peregrine_server.models.loading.gguf_blocks import Codes
from peregrine_server.models.loading.gguf_header import read_header
from peregrine_server.models.loading.slices import whole
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import Weights
from peregrine_server.models.registry import load_format

INT4, WITH_ZEROS, CODEBOOK = Packing("int4", 32), Packing("int4", 32, has_zeros=True), Packing("codebook", 32)


def folder_of(path: Path, types: str, **overrides: Any) -> Path:
    """A model's folder for a file of that mix."""
    write_gguf(path / "falcon.gguf", "40b", MIXES[types], tokenizer=train_backend(), **overrides)
    return make_folder(path / "falcon.gguf")


@pytest.mark.parametrize(
    ("types", "kept"),
    [
        (["Q4_0"], INT4),
        (["Q4_1"], WITH_ZEROS),
        (["Q4_K"], WITH_ZEROS),
        (["IQ4_NL"], CODEBOOK),
        *((([name], INT8)) for name in ("Q5_0", "Q5_1", "Q8_0", "Q5_K", "Q6_K")),
        (["BF16"], DENSE),
        (["Q4_0", "Q4_K"], WITH_ZEROS),
        (["Q4_0", "Q6_K"], INT8),
        (["Q4_1", "IQ4_NL"], INT8),
        (["Q4_0", "F16"], DENSE),
    ],
)
def test_linears_are_kept_as_the_nearest_that_kernels_have(types: list[str], kept: Packing) -> None:
    """4 bits as they are, 5 to 8 as 8 in rows; linears that are multiplied as one, alike."""
    names = [f"linear {index}" for index in range(len(types))]
    config = quantization_config({**dict(zip(names, types, strict=True)), "other": "Q8_0"}, [names])
    assert config is not None
    packings = read_packings(config)
    assert {packings[name] for name in names} == {kept}
    assert packings["other"] == INT8


@native
@pytest.mark.parametrize("name", MIXES)
def test_a_loaded_model_holds_the_bytes_that_are_planned(name: str, tmp_path: Path) -> None:
    """Its tensors, to the byte, with the CPU's kernels; linears are whole tiles."""
    folder, context = folder_of(tmp_path, name, vocab_size=320), model_context(torch.bfloat16)
    model = load(folder, replace(context, format=load_format(folder, None, context.backend)))
    planned = footprint(model.config, replace(context.layout, format=load_format(folder, None, CPU_KERNELS)))
    assert held_bytes(model) - held_bytes(model.rotary, model.context) == planned.weight_bytes


def test_sizes_of_linears_are_those_of_their_types() -> None:
    """4 bits and a scale for 32, with a zero point where there are offsets, or a table; 8 bits and a row's scale."""
    config = quantization_config({"a": "Q4_0", "b": "Q4_K", "c": "Q6_K", "d": "IQ4_NL", "e": "F16"}, [])
    assert config is not None
    found = GgufFormat(config, ALL_KERNELS)
    num_bytes = {name: found.linear(name).num_bytes(1, 256, "bfloat16") for name in "abcde"}
    assert num_bytes == {"a": 128 + 16, "b": 128 + 8 * 6, "c": 256 + 4, "d": 128 + 32 + 64, "e": 512}
    assert GgufFormat(config, CPU_KERNELS).linear("d").num_bytes(10, 256, "bfloat16") == 10 * 512
    assert found.linear("b").checkpoint_bytes(10, 256, "bfloat16") == 1440
    assert found.linear("c").checkpoint_bytes(10, 256, "bfloat16") == 5120


def test_zero_points_stand_for_offsets() -> None:
    """(code - zero) * scale is code * scale + offset, of groups without a scale too."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(16, (3, 96), dtype=torch.uint8, generator=generator)
    scales, offsets = torch.rand(2, 3, 3, generator=generator)
    scales[1, 1] = 0
    scales[2, 2] = offsets[2, 2] = 0
    expected = codes.unflatten(1, (3, 32)) * scales[..., None] + offsets[..., None]
    found, new_scales, zeros = with_zeros(Codes(codes, scales, offsets))
    torch.testing.assert_close((found.unflatten(1, (3, 32)) - zeros[..., None]) * new_scales[..., None], expected)
    assert torch.isfinite(zeros).all()


def test_four_bits_are_kept_to_the_bit(tmp_path: Path) -> None:
    """Codes of the file with its scales, where kernels take them."""
    model = write_gguf(tmp_path / "falcon.gguf", "7b", MIXES["Q4_0"], tokenizer=train_backend())
    folder = make_folder(tmp_path / "falcon.gguf")
    found, config = load_format(folder, None, ALL_KERNELS), falcon_config(folder)
    name = "h.0.mlp.dense_h_to_4h"
    with Weights(folder, CPU, torch.float32, gguf=FalconGguf(config)) as weights:
        weight = found.load(weights, ((name, whole(config.ffn_size)),), axis=0)
    assert isinstance(weight, Int4Weight)
    assert torch.equal(weight.dequantize(), model.state_dict()[f"transformer.{name}.weight"])


def test_quantize_may_name_it(tmp_path: Path) -> None:
    """gguf, and nothing else."""
    folder = folder_of(tmp_path, "Q4_0")
    assert load_format(folder, "gguf", ALL_KERNELS).name == "gguf"
    with pytest.raises(ValueError, match=r"^--quantize int4: the checkpoint's weights are gguf already: leave it out$"):
        load_format(folder, "int4")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "types must name the linears' types"),
        ({"types": {"a": "Q2_K"}}, "types must name the linears' types"),
        ({"types": {"a": "Q4_0"}, "together": [["b"]]}, "together ['b'] names other linears than types"),
        ({"types": {"a": "Q4_0"}, "together": 3}, "together must be a list of lists"),
    ],
)
def test_settings_that_are_not_understood_are_named(settings: dict[str, object], message: str) -> None:
    """They are written by the start itself, but a folder may be anybody's."""
    assert message in refusal(read_packings, settings)


def test_types_of_other_linears_are_named(tmp_path: Path) -> None:
    """If config.json is not of the file beside it."""
    folder = folder_of(tmp_path, "Q4_0")
    set_setting(folder, "types", {"h.0.mlp.dense_4h_to_h": "Q4_0"})
    set_setting(folder, "together", [])
    assert "quantization_config: types lack h.0.self_attention.query_key_value" in failure(folder)


@pytest.mark.parametrize("place", [0, 2])
def test_scales_that_are_no_numbers_are_named(place: int, tmp_path: Path) -> None:
    """A block's scale, or its offset: only reading the weight finds them."""
    path = tmp_path / "falcon.gguf"
    write_gguf(path, "40b", mix(others="F16", ffn_down="Q4_1"), tokenizer=train_backend())
    at = read_header(path).tensors["blk.0.ffn_down.weight"].offset + 20 * 5 + place
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x00\x7e")  # NaN
    with pytest.raises(CheckpointError, match=r"^\S*h\.0\.mlp\.dense_4h_to_h\.q4_1 holds numbers that are not finite"):
        load_quantized(make_folder(path))


def test_rows_without_whole_blocks_are_refused() -> None:
    """A config.json that is not the file's may ask for them."""
    config = quantization_config({"a": "Q4_K"}, [])
    assert config is not None
    assert read_types(config) == {"a": "Q4_K"}
    with pytest.raises(ValueError, match=r"^a: 448 inputs fill no blocks of Q4_K$"):
        GgufFormat(config).expected("a", 8, 448)
