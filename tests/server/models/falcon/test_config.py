"""config.json in, FalconConfig out, whatever the dialect."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoints import PUBLISHED, VARIANTS, build_model, config_json
from peregrine_server.models.errors import ConfigError, UnsupportedModel
from peregrine_server.models.falcon.config import MAX_LAYERS, FalconConfig
from peregrine_server.models.loading.config_reader import MAX_SIZE
from peregrine_server.models.registry import load_config

FALCON_7B = PUBLISHED["falcon-7b"]


@pytest.mark.parametrize(
    ("model", "num_heads", "num_kv_heads", "head_dim", "ffn_size", "is_parallel", "num_norms", "has_alibi", "is_tied"),
    [
        ("falcon-rw-1b", 32, 32, 64, 8192, False, 2, True, True),
        ("falcon-7b", 71, 1, 64, 18176, True, 1, False, True),
        ("falcon-40b", 128, 8, 64, 32768, True, 2, False, True),
        ("falcon-180B", 232, 8, 64, 59392, True, 2, False, True),
        ("falcon-11B", 32, 8, 128, 16384, True, 1, False, False),
    ],
)
def test_published_configs_are_read_right(
    model: str,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    ffn_size: int,
    is_parallel: bool,
    num_norms: int,
    has_alibi: bool,
    is_tied: bool,
) -> None:
    """Every published model's config gives the shape that its weights have."""
    config = FalconConfig.from_hf(PUBLISHED[model])
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (num_heads, num_kv_heads, head_dim)
    assert (config.ffn_size, config.is_parallel, config.num_layer_norms) == (ffn_size, is_parallel, num_norms)
    assert (config.has_alibi, config.is_tied) == (has_alibi, is_tied)


@pytest.mark.parametrize("variant", ["rw-1b", "rw-7b", "7b", "40b", "180b"])
@pytest.mark.parametrize("dialect", ["old", "transition"])
def test_dialects_agree(variant: str, dialect: str) -> None:
    """A model described in an older dialect has the config that it has in transformers' own."""
    hf = build_model(variant).config
    assert FalconConfig.from_hf(config_json(hf, dialect)) == FalconConfig.from_hf(config_json(hf, "new"))


@pytest.mark.parametrize("num_kv_heads", [71, 1, None])
def test_multi_query_has_one_kv_head_whatever_the_file_says(num_kv_heads: int | None) -> None:
    """transformers 5 writes 71 KV heads for a multi-query 7B; there is one."""
    assert FalconConfig.from_hf({**FALCON_7B, "num_kv_heads": num_kv_heads}).num_kv_heads == 1


@pytest.mark.parametrize(
    ("rope", "theta", "factor", "is_dynamic"),
    [
        ({}, 10000.0, 1.0, False),
        ({"rope_theta": 500042.0}, 500042.0, 1.0, False),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 500042.0}}, 500042.0, 1.0, False),
        ({"rope_theta": 2e4, "rope_scaling": {"type": "linear", "factor": 2.0}}, 2e4, 2.0, False),
        ({"rope_theta": 2e4, "rope_scaling": None}, 2e4, 1.0, False),
        ({"rope_theta": 2e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2e4, 2.0, True),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 2e4}}, 2e4, 4.0, True),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2.0}},
            1e4,
            2.0,
            False,
        ),
        ({"alibi": True, "rope_scaling": {"type": "yarn", "factor": 2.0}}, 1e4, 1.0, False),
    ],
)
def test_rope_parameters_are_found_wherever_they_are(
    rope: dict[str, Any], theta: float, factor: float, is_dynamic: bool
) -> None:
    """theta and scaling are read from the newer object and from the older keys, which win; with ALiBi they are moot."""
    config = FalconConfig.from_hf({**FALCON_7B, **rope})
    assert (config.rope_theta, config.rope_factor, config.is_rope_dynamic) == (theta, factor, is_dynamic)


@pytest.mark.parametrize("value", [11, [11, 12], None, [], -1, 65024, "</s>", 11.0])
def test_any_eos_token_id_loads(value: object) -> None:
    """The end of text is the tokenizer's matter: no eos_token_id keeps a model from being served."""
    assert FalconConfig.from_hf({**FALCON_7B, "eos_token_id": value}) == FalconConfig.from_hf(FALCON_7B)


@pytest.mark.parametrize(
    "architectures",
    [
        ["AutoModelForCausalLMWithValueHead"],
        ["PeftModelForCausalLM"],
        ["MyFalcon"],
        "FalconForCausalLM",
        [],
        None,
        ["FalconForSequenceClassification", "FalconForCausalLM"],
    ],
)
def test_a_wrappers_name_in_architectures(architectures: object) -> None:
    """model_type says what the weights are; the class that saved them may have any name."""
    assert FalconConfig.from_hf({**FALCON_7B, "architectures": architectures}) == FalconConfig.from_hf(FALCON_7B)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, ["'llama'", "Falcon3", "falcon-7b"]),
        ({"model_type": "falcon_h1"}, ["'falcon_h1'", "Falcon-H1", "falcon-7b"]),
        ({"model_type": "falcon_mamba"}, ["'falcon_mamba'", "falcon-7b"]),
        ({"model_type": None}, ["None", "falcon-7b"]),
        ({"architectures": ["FalconForSequenceClassification"]}, ["FalconForSequenceClassification"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, ["'yarn'", "default, linear and dynamic are"]),
        ({"architectures": "FalconForTokenClassification"}, ["FalconForTokenClassification"]),
        ({"apply_residual_connection_post_layernorm": True}, ["apply_residual_connection_post_layernorm"]),
    ],
)
def test_other_models_are_refused(change: dict[str, Any], words: list[str]) -> None:
    """A config of another kind of model is an UnsupportedModel of one line that names what it is."""
    with pytest.raises(UnsupportedModel) as caught:
        FalconConfig.from_hf({**FALCON_7B, **change})
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"n_head": None}, "num_attention_heads is missing"),
        ({"hidden_size": 0}, "hidden_size must be between 1"),
        ({"n_layer": -1}, "n_layer must be between 1"),
        ({"n_layer": MAX_LAYERS + 1}, "n_layer must be between 1"),
        ({"vocab_size": MAX_SIZE + 1}, "vocab_size must be between 1"),
        ({"vocab_size": "65024"}, "vocab_size must be an integer"),
        ({"vocab_size": True}, "vocab_size must be an integer"),
        ({"vocab_size": 1e9}, "vocab_size must be an integer"),
        ({"bias": "no"}, "bias must be true or false"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a positive number"),
        ({"rope_theta": float("nan")}, "rope_theta must be a positive number"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling of type linear has no factor: add"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": None}}, "of type dynamic has no factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor must be a positive number"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
        ({"activation": "softmax"}, "activation 'softmax' is not one of gelu"),
        ({"activation": 7}, "activation must be a string"),
        ({"n_head": 70}, "not divisible by its 70 heads"),
        ({"n_head_kv": 3}, "71 heads are not divisible by 3 KV heads"),
        ({"multi_query": False, "num_kv_heads": 8}, "must equal the 71 heads"),
        ({"n_head_kv": 1, "num_ln_in_parallel_attn": 3}, "must be 1 or 2"),
        ({"n_head": 4544}, "even head dimension"),
        ({"n_head": 2272, "rope_scaling": {"type": "dynamic", "factor": 2}}, "head dimension of 4 or more, not 2"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A value that makes no Falcon is a ConfigError of one line that names the file and the value."""
    (tmp_path / "config.json").write_text(json.dumps({**FALCON_7B, **change}))
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"{", "not valid JSON"), (b"[]", "JSON object"), (b"\xff", "not valid JSON")],
)
def test_a_missing_or_malformed_file_is_one_line(content: bytes | None, words: str, tmp_path: Path) -> None:
    """config.json that is absent, cut short, no object or no text is a ConfigError of one line that names it."""
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(tmp_path)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """A config.json that nests beyond the parser's depth is malformed, not a crash."""
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_config(tmp_path)


def test_planning_needs_no_torch() -> None:
    """The router can read a config and plan memory without importing torch."""
    family = "peregrine_server.models.falcon"
    code = f"import sys, {family}.footprint, {family}.config, {family}.partition; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_variants_cover_every_kind_of_block() -> None:
    """The checkpoints that the other tests use have every combination of block and attention that was published."""
    configs = [FalconConfig.from_hf(config_json(build_model(variant).config)) for variant in VARIANTS]
    assert {(c.is_parallel, c.num_layer_norms) for c in configs} == {(False, 2), (True, 1), (True, 2)}
