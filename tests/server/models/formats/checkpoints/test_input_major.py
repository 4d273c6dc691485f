"""Checkpoints of GPTQ and AWQ that lie, and what they take."""

import json
from pathlib import Path

import pytest
import torch

from gptq_awq_checkpoints import INPUT_MAJOR
from lying_checkpoints import (
    AT,
    Change,
    failure,
    load_quantized,
    progress_of,
    replaced,
    rewrite,
    set_first,
    set_setting,
)
from peregrine_server.models.formats.interface import ALL_KERNELS
from peregrine_server.models.registry import load_format
from quantized_checkpoints import write_quantized


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gptq", set_first("scales", float("nan")), f"{AT}.scales holds numbers that are not finite"),
        ("awq", set_first("scales", float("inf")), f"{AT}.scales holds numbers that are not finite"),
        ("gptq", set_first("qzeros", 0), f"{AT}.qzeros holds other zero points than sym and checkpoint_format say"),
        ("gptq", set_first("g_idx", 1), f"{AT}.g_idx has inputs in another order; set desc_act to true"),
        ("gptq with act-order", set_first("g_idx", 28), f"{AT}.g_idx names groups beyond its 28"),
        ("gptq with act-order", set_first("g_idx", -1), f"{AT}.g_idx names groups beyond its 28"),
        ("gptq with act-order", lambda each: each.pop(f"{AT}.g_idx"), f"lacks tensor '{AT}.g_idx'"),
        ("gptq", replaced("qweight", torch.zeros(56, 111, dtype=torch.int32)), f"{AT}.qweight has shape [56, 111]"),
        ("gptq", replaced("qweight", torch.zeros(56, 112)), f"{AT}.qweight is not of type I32"),
        ("awq", replaced("qzeros", torch.zeros(27, 14, dtype=torch.int32)), f"{AT}.qzeros has shape [27, 14]"),
        ("gptq", lambda each: each.pop(f"{AT}.qzeros"), f"lacks tensor '{AT}.qzeros'"),
        ("awq", lambda each: each.pop(f"{AT}.scales"), f"lacks tensor '{AT}.scales'"),
        ("awq", replaced("scales", torch.ones(28, 56)), f"{AT}.scales has shape [28, 56], not [28, 112]"),
        ("gptq v2 with zeros", replaced("qzeros", torch.ones(28, 14)), f"{AT}.qzeros is not of type I32"),
        ("gptq ragged", set_first("g_idx", 10), f"{AT}.g_idx has inputs in another order"),
        ("gptq", replaced("perm", torch.zeros(448)), f"'{AT}.perm' is of a layout that is not supported"),
        (
            "awq",
            lambda each: each.update({"transformer.h.0.mlp.act.scales": torch.ones(448)}),
            "'h.0.mlp.act.scales' is of a layout that is not supported",
        ),
    ],
)
def test_lying_tensors_are_named(name: str, change: Change, message: str, tmp_path: Path) -> None:
    """In one line each."""
    write_quantized(tmp_path, "7b", INPUT_MAJOR[name])
    rewrite(tmp_path, change)
    assert message.replace("transformer.", "") in failure(tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("awq", "group_size", 48, "h.0.self_attention.query_key_value.scales: groups of 48 do not divide 112 inputs"),
        ("awq", "modules_to_not_convert", ["mlp"], "modules_to_not_convert 'mlp' leaves h.0.mlp.dense_h_to_4h in 16"),
        ("gptq", "checkpoint_format", "gptq_v2", "qzeros holds other zero points than sym and checkpoint_format say"),
        ("gptq", "desc_act", "no", "desc_act 'no' is not supported"),
        ("gptq", "group_size", 32, "h.0.self_attention.query_key_value.qzeros has shape [7, 18], not [4, 18]"),
        ("gptq of 8 bits", "bits", 4, "h.0.self_attention.query_key_value.qweight has shape [28, 144], not [14, 144]"),
        ("gptq", "bits", 8, "h.0.self_attention.query_key_value.qweight has shape [14, 144], not [28, 144]"),
    ],
)
def test_settings_of_another_checkpoint_are_named(
    name: str, key: str, value: object, message: str, tmp_path: Path
) -> None:
    """With the first linear that they do not fit."""
    write_quantized(tmp_path, "7b", INPUT_MAJOR[name])
    set_setting(tmp_path, key, value)
    assert message in failure(tmp_path)


@pytest.mark.parametrize(("name", "file"), [("gptq", "quantize_config.json"), ("awq", "quant_config.json")])
def test_settings_beside_config_json_are_read(name: str, file: str, tmp_path: Path) -> None:
    """As older tools wrote them; their weights have a name of their own too."""
    write_quantized(tmp_path, "7b", INPUT_MAJOR[name])
    config = json.loads((tmp_path / "config.json").read_text())
    settings = config.pop("quantization_config")
    del settings["quant_method"]
    (tmp_path / file).write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").rename(tmp_path / "gptq_model-4bit--1g.safetensors")
    load_quantized(tmp_path)
    assert load_format(tmp_path, name).name == name


@pytest.mark.parametrize("name", ["gptq", "int4", "marlin", None])
def test_a_name_of_what_the_checkpoint_holds_is_taken(name: str | None, tmp_path: Path) -> None:
    """Another name is refused in one line."""
    write_quantized(tmp_path, "7b", INPUT_MAJOR["gptq"])
    load_format(tmp_path, name)
    with pytest.raises(ValueError, match=r"^--quantize awq: the checkpoint's weights are gptq already: leave it out$"):
        load_format(tmp_path, "awq")


@pytest.mark.parametrize(
    ("name", "row_bytes"),
    [
        ("gptq", 64 + 8 * 2),
        ("gptq v2 with zeros", 64 + 8 * (2 + 4)),
        ("gptq of rows with act-order", 64 + 2 * 2),
        ("gptq with act-order", 128 + 4),
        ("gptq of 8 bits with zeros", 128 + 4),
    ],
)
def test_sizes(name: str, row_bytes: int, tmp_path: Path) -> None:
    """Groups that are not consecutive take 8 bits, as 8-bit groups do; zero points count."""
    write_quantized(tmp_path, "7b", INPUT_MAJOR[name])
    assert load_format(tmp_path, None, ALL_KERNELS).num_bytes(10, 128, "bfloat16") == 10 * row_bytes


def test_progress_ends_at_the_bytes_that_are_read(tmp_path: Path) -> None:
    """Words, zero points and the order of inputs count as they are stored."""
    write_quantized(tmp_path, "7b", INPUT_MAJOR["gptq with zeros and act-order"])
    reports = progress_of(tmp_path)
    assert reports[-1][0] == pytest.approx(reports[-1][1], rel=0.02)
