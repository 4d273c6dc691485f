"""Checkpoints of compressed-tensors that lie, and those that its own package writes."""

from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from torch import Tensor

from lying_checkpoints import AT, Change, failure, progress_of, replaced, rewrite, set_first
from peregrine_kernels import UnsupportedWeight
from peregrine_server.models.formats.interface import ALL_KERNELS, KernelsOfDevice
from peregrine_server.models.formats.quantized import QuantizedFormat
from peregrine_server.models.registry import load_format
from quantized_checkpoints import LAYOUTS, words, write_quantized


def scale(tensors: dict[str, Tensor], value: float) -> None:
    tensors[f"{AT}.weight_scale"][3, 0] = value


def widen(tensors: dict[str, Tensor]) -> None:
    tensors[f"{AT}.weight_packed"] = tensors[f"{AT}.weight_packed"].long()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda each: scale(each, float("nan")), "weight_scale holds numbers that are not finite"),
        (lambda each: scale(each, float("-inf")), "weight_scale holds numbers that are not finite"),
        (lambda each: each.update({f"{AT}.weight_shape": torch.tensor([112, -448])}), "weight_shape says [112, -448]"),
        (lambda each: each.update({f"{AT}.weight_packed": torch.zeros(112, 57, dtype=torch.int32)}), "not [112, 56]"),
        (widen, "weight_packed is not of type I32"),
        (lambda each: each.pop(f"{AT}.weight_scale"), "lacks tensor 'h.1.mlp.dense_4h_to_h.weight_scale'"),
        (lambda each: each.update({f"{AT}.weight_g_idx": torch.zeros(448)}), "layout that is not supported"),
        (lambda each: each.update({"lm_head.weight_packed": torch.zeros(4, 4)}), "layout that is not supported"),
    ],
)
def test_lying_tensors_are_named(change: Change, message: str, tmp_path: Path) -> None:
    """In one line each."""
    write_quantized(tmp_path, "7b", LAYOUTS["int4"])
    rewrite(tmp_path, change)
    error = failure(tmp_path)
    assert message in error
    assert "lm_head" in error or "h.1.mlp.dense_4h_to_h" in error


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("int8", lambda each: each.pop(f"{AT}.weight_scale"), "lacks tensor 'h.1.mlp.dense_4h_to_h.weight_scale'"),
        ("int8", replaced("weight", torch.zeros(112, 448)), "weight is not of type I8"),
        ("int8", replaced("weight_scale", torch.ones(448, 1)), "weight_scale has shape [448, 1], not [112, 1]"),
        ("int8 with zeros", lambda each: each.pop(f"{AT}.weight_zero_point"), "lacks tensor"),
        (
            "int8 of one scale",
            set_first("weight_scale", float("inf")),
            "weight_scale holds numbers that are not finite",
        ),
        ("fp8", replaced("weight", torch.zeros(112, 448, dtype=torch.int8)), "weight is not of type F8_E4M3"),
        ("fp8 of one scale", replaced("weight_scale", torch.ones(112)), "weight_scale has shape [112], not [1]"),
        ("packed int8", replaced("weight_scale", torch.ones(112, 1).int()), "weight_scale is of no type that can be"),
    ],
)
def test_lying_tensors_of_other_layouts_are_named(name: str, change: Change, message: str, tmp_path: Path) -> None:
    """In one line each."""
    write_quantized(tmp_path, "7b", LAYOUTS[name])
    rewrite(tmp_path, change)
    error = failure(tmp_path)
    assert message in error
    assert "h.1.mlp.dense_4h_to_h" in error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"num_bits": 4', '"num_bits": 8', "weight_packed has shape [144, 14], not [144, 28]"),
        ('"symmetric": true', '"symmetric": false', "lacks tensor 'h.0.mlp.dense_4h_to_h.weight_zero_point'"),
        ("pack-quantized", "int-quantized", "num_bits 4 is not supported"),
    ],
)
def test_settings_of_another_checkpoint_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    """With the first linear that they do not fit, or the key that is not understood."""
    write_quantized(tmp_path, "7b", LAYOUTS["int4"])
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(old, new))
    assert message in failure(tmp_path)


def test_groups_that_do_not_divide_are_named(tmp_path: Path) -> None:
    """With the tensor, the group and the width."""
    write_quantized(tmp_path, "7b", LAYOUTS["int4"])
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"group_size": 16', '"group_size": 48'))
    assert "self_attention.query_key_value.weight_scale: groups of 48 do not divide 112 inputs" in failure(tmp_path)


@pytest.mark.parametrize("name", ["int4", "compressed-tensors", "marlin", None])
def test_a_name_of_what_the_checkpoint_holds_is_taken(name: str | None, tmp_path: Path) -> None:
    """Another name is refused in one line."""
    write_quantized(tmp_path, "7b", LAYOUTS["int4"])
    load_format(tmp_path, name)
    with pytest.raises(ValueError, match=r"^--quantize nf4: the checkpoint's weights are compressed-tensors [^\n]*$"):
        load_format(tmp_path, "nf4")


@pytest.mark.parametrize("name", ["fp8", "compressed-tensors", "fp8-w8a8", None])
def test_fp8_of_a_checkpoint_rounds_inputs_where_it_is_told_to(name: str | None, tmp_path: Path) -> None:
    """By its name alone, whatever the checkpoint says of inputs; the operator is told."""
    write_quantized(tmp_path, "7b", LAYOUTS["fp8"])
    found = load_format(tmp_path, name, ALL_KERNELS)
    assert isinstance(found, QuantizedFormat)
    assert found.rounds_inputs == (name == "fp8-w8a8")
    assert found.name.endswith("float-quantized, W8A8" if found.rounds_inputs else "float-quantized")
    write_quantized(tmp_path / "int8", "7b", LAYOUTS["int8"])
    with pytest.raises(ValueError, match=r"^--quantize fp8-w8a8: the checkpoint's weights are compressed-"):
        load_format(tmp_path / "int8", "fp8-w8a8")


def test_a_device_without_kernels_refuses(tmp_path: Path) -> None:
    """In one line that names the layout."""
    write_quantized(tmp_path, "7b", LAYOUTS["int4"])
    kernels = KernelsOfDevice(0, has_fp8=False, int4_group=0, has_codebooks=False, dequantizes=False)
    with pytest.raises(UnsupportedWeight, match=r"^compressed-tensors pack-quantized weights have no kernels"):
        load_format(tmp_path, None, kernels)


@pytest.mark.parametrize("num_bits", [4, 8])
def test_words_are_those_of_the_package(num_bits: int) -> None:
    """The tests' own packing, from the definition, gives what compressed-tensors packs."""
    q = torch.randint(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1), (6, 32), dtype=torch.int8)
    assert torch.equal(words(q, num_bits), pack_to_int32(q, num_bits))
    assert torch.equal(words(q.T, num_bits).T, pack_to_int32(q, num_bits, packed_dim=0))


def test_progress_ends_near_the_bytes_that_are_read(tmp_path: Path) -> None:
    """Scales and packed words count as they are stored."""
    write_quantized(tmp_path, "7b", LAYOUTS["int4"])
    reports = progress_of(tmp_path)
    assert reports[-1][0] == pytest.approx(reports[-1][1], rel=0.01)
    assert reports == sorted(reports)
