"""Falcons' GGUF files: config.json and names."""

import re
from pathlib import Path
from typing import Any

import pytest

from gguf_checkpoints import MIXES, VARIANTS, write_gguf
from peregrine_server.models.errors import ConfigError, UnsupportedModel
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.gguf import FalconGguf, hf_config
from peregrine_server.models.falcon.published import PUBLISHED
from peregrine_server.models.loading.gguf_header import BY_NAME, GgufHeader, GgufTensor, read_header
from peregrine_server.models.registry import gguf_config


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_config_is_the_models(variant: str, tmp_path: Path) -> None:
    """As transformers' own config.json tells it, but for the length, of which the converter writes 2048."""
    model = write_gguf(tmp_path / "falcon.gguf", variant)
    found = FalconConfig.from_hf(hf_config([read_header(tmp_path / "falcon.gguf")]))
    expected = FalconConfig.from_hf({**model.config.to_dict(), "max_position_embeddings": 2048, "dtype": "bfloat16"})
    assert found.layer_norm_epsilon == pytest.approx(expected.layer_norm_epsilon)
    for name in FalconConfig.__slots__:
        assert name == "layer_norm_epsilon" or getattr(found, name) == getattr(expected, name), name


def header_of(hf: dict[str, Any], **metadata: object) -> GgufHeader:
    """The header of a model without layers' tensors."""
    said = {
        "general.architecture": "falcon",
        "falcon.tensor_data_layout": "jploski",
        "falcon.context_length": 2048,
        "falcon.embedding_length": hf["hidden_size"],
        "falcon.block_count": hf["num_hidden_layers"],
        "falcon.attention.head_count": hf["num_attention_heads"],
        "falcon.attention.head_count_kv": hf.get("num_kv_heads", 1),
        **{name.replace("__", "."): value for name, value in metadata.items()},
    }
    table = GgufTensor((hf["vocab_size"], hf["hidden_size"]), BY_NAME["F16"], 0)
    return GgufHeader(Path("x.gguf"), said, {"token_embd.weight": table})


def test_what_the_converter_leaves_out_is_that_of_the_published_model() -> None:
    """Falcon 2's rotary base and length, by its shape; a base that a file names counts for other shapes."""
    found = hf_config([header_of(dict(PUBLISHED["tiiuae/falcon-11B"]))])
    assert (found["rope_theta"], found["max_position_embeddings"]) == (500042.0, 8192)
    found = hf_config([header_of(dict(PUBLISHED["tiiuae/falcon-40b"]), falcon__rope__freq_base=20000.0)])
    assert (found["rope_theta"], found["max_position_embeddings"]) == (20000.0, 2048)


def test_scaled_positions_are_read() -> None:
    """Linear scaling, as config.json names it."""
    hf = dict(PUBLISHED["tiiuae/falcon-7b"])
    scaling = {"falcon__rope__scaling__type": "linear", "falcon__rope__scaling__factor": 2.0}
    assert FalconConfig.from_hf(hf_config([header_of(hf, **scaling)])).rope_factor == 2


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        (
            {"general__architecture": "llama"},
            UnsupportedModel,
            "its architecture 'llama' is not supported: give a model of falcon",
        ),
        ({"falcon__tensor_data_layout": "hf"}, UnsupportedModel, "falcon.tensor_data_layout 'hf' is not read"),
        ({"falcon__embedding_length": None}, ConfigError, "hidden_size is missing"),
        ({"falcon__block_count": 2**31}, ConfigError, "num_hidden_layers must be between 1 and 1000"),
        ({"falcon__attention__head_count": (71, 71)}, ConfigError, "num_attention_heads must be an integer"),
        (
            {"falcon__rope__scaling__type": "yarn"},
            UnsupportedModel,
            "rotary positions of type 'yarn' are not supported",
        ),
    ],
)
def test_other_models_are_refused(metadata: dict[str, object], error: type[Exception], message: str) -> None:
    """In one line that names the file and the key."""
    header = header_of(dict(PUBLISHED["tiiuae/falcon-7b"]), **metadata)
    with pytest.raises(error, match=rf"^x\.gguf: [^\n]*{re.escape(message)}[^\n]*$"):
        gguf_config([header], {})


@pytest.mark.parametrize("name", ["blk.0.attn_qkv.bias", "blk.0.ffn_gate.weight", "rope_freqs.weight", "blk.x.ffn_up"])
def test_tensors_of_other_models_are_named(name: str) -> None:
    """falcon-rw's biases among them: llama.cpp has no graph for that."""
    header = header_of(dict(PUBLISHED["tiiuae/falcon-7b"]))
    header.tensors[name] = header.tensors["token_embd.weight"]
    with pytest.raises(UnsupportedModel, match=f"tensor '{name}' is in no Falcon that llama.cpp writes"):
        gguf_config([header], {})


def test_config_json_beside_counts(tmp_path: Path) -> None:
    """Its keys replace those of the file, but not the quantization."""
    write_gguf(tmp_path / "falcon.gguf", "40b", MIXES["Q4_0"])
    headers = [read_header(tmp_path / "falcon.gguf")]
    found = gguf_config(headers, {"rope_theta": 7.0, "quantization_config": {"quant_method": "gptq"}})
    assert found["rope_theta"] == 7
    assert found["quantization_config"]["quant_method"] == "gguf"


def test_floating_point_files_are_not_quantized(tmp_path: Path) -> None:
    """So that --quantize can round them, and they can be planned."""
    write_gguf(tmp_path / "falcon.gguf", "40b", MIXES["F16"])
    assert hf_config([read_header(tmp_path / "falcon.gguf")]).get("quantization_config") is None


def test_rows_are_those_of_kv_groups() -> None:
    """With 4 heads in 2 groups, a file has the queries of both, then both keys, then both values."""
    hf = {"model_type": "falcon", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = FalconConfig.from_hf({**hf, "num_kv_heads": 2, "new_decoder_architecture": True})
    rows = FalconGguf(config).place("blk.0.attn_qkv.weight").rows
    assert rows is not None
    file_rows = {run.target + i: run.source + i for run in rows.runs for i in range(run.length)}
    heads = [file_rows[2 * head] // 2 for head in range(8)]
    assert heads == [0, 1, 4, 6, 2, 3, 5, 7]
