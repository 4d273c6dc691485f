"""Small random Falcon checkpoints of every published kind, in every dialect of config.json and file format."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import FalconConfig, FalconForCausalLM

_RW = {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}
_NEW = {"new_decoder_architecture": True}

VARIANTS: dict[str, dict[str, Any]] = {
    "rw-1b": {"hidden_size": 64, "num_attention_heads": 4, "num_kv_heads": 4, **_RW},
    "rw-7b": {"hidden_size": 96, "num_attention_heads": 6, "num_kv_heads": 6, "vocab_size": 257, **_RW},
    "7b": {"hidden_size": 112, "num_attention_heads": 7, "num_kv_heads": 1},
    "40b": {"hidden_size": 160, "num_attention_heads": 10, "num_kv_heads": 2, **_NEW},
    "180b": {"hidden_size": 96, "num_attention_heads": 12, "num_kv_heads": 4, "num_ln_in_parallel_attn": 2, **_NEW},
    "11b": {
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "num_ln_in_parallel_attn": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500042.0},
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        **_NEW,
    },
    "7b-odd": {
        "hidden_size": 56,
        "num_attention_heads": 7,
        "num_kv_heads": 1,
        "ffn_hidden_size": 200,
        "bias": True,
        "activation": "gelu_pytorch_tanh",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    },
}
"""Each published model's flags on a small shape, and one that departs from all of them."""


def build_model(variant: str, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any) -> FalconForCausalLM:
    """transformers' model with every weight random, at a scale that makes logits differ and keeps them of order one."""
    defaults = {"vocab_size": 300, "num_hidden_layers": 2, "eos_token_id": 11, "bos_token_id": 11}
    config = FalconConfig(**{**defaults, **VARIANTS[variant], **overrides})
    model = FalconForCausalLM(config)
    model.train(False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(_random(name, weight, generator))
    torch.nn.Module.to(model, dtype)
    model.tie_weights()
    return model


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator)
    if name.endswith("bias"):
        return noise * 0.1
    if like.dim() == 1:
        return 1 + noise * 0.2
    return noise / math.sqrt(like.shape[1])


def write_checkpoint(
    path: Path, model: FalconForCausalLM, dialect: str = "new", file_format: str = "safetensors", num_shards: int = 1
) -> Path:
    """Writes config.json in a dialect ("old", "transition" or "new") and the weights ("safetensors" or "bin")."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config_json(model.config, dialect)))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    write_tensors(path, tensors, file_format, num_shards)
    return path


def write_tensors(
    path: Path, tensors: dict[str, Tensor], file_format: str = "safetensors", num_shards: int = 1
) -> None:
    """One file, or `num_shards` and an index, under the names that Hugging Face gives them."""
    stem, suffix = ("model", "safetensors") if file_format == "safetensors" else ("pytorch_model", "bin")
    if num_shards == 1:
        _save(path / f"{stem}.{suffix}", tensors)
        return
    weight_map = {}
    for shard in range(num_shards):
        file = f"{stem}-{shard + 1:05}-of-{num_shards:05}.{suffix}"
        names = list(tensors)[shard::num_shards]
        weight_map.update(dict.fromkeys(names, file))
        _save(path / file, {name: tensors[name] for name in names})
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (path / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def _save(file: Path, tensors: dict[str, Tensor]) -> None:
    if file.suffix == ".safetensors":
        save_file(tensors, file, metadata={"format": "pt"})
    else:
        torch.save(tensors, file)


def config_json(config: FalconConfig, dialect: str = "new") -> dict[str, Any]:
    """config.json as the published models of each time have it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new: dict[str, Any] = {"architectures": ["FalconForCausalLM"], **config.to_dict()}
    if dialect == "new":
        return new
    old = {key: new[key] for key in ("alibi", "bias", "hidden_size", "parallel_attn", "vocab_size", "eos_token_id")}
    old |= {"n_head": config.num_attention_heads, "n_layer": config.num_hidden_layers, "layer_norm_epsilon": 1e-5}
    old |= {"multi_query": config.multi_query or config.new_decoder_architecture}
    if config.new_decoder_architecture:
        old["n_head_kv"] = config.num_kv_heads
    if dialect == "transition":
        return {"model_type": "falcon", "architectures": ["FalconForCausalLM"], **old}
    model_type = "RefinedWeb" if config.new_decoder_architecture else "RefinedWebModel"
    return {
        "model_type": model_type,
        "architectures": ["RWForCausalLM"],
        "apply_residual_connection_post_layernorm": False,
        **old,
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "falcon-rw-1b": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "alibi": True,
        "apply_residual_connection_post_layernorm": False,
        "bias": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 2048,
        "layer_norm_epsilon": 1e-05,
        "multi_query": False,
        "new_decoder_architecture": False,
        "num_attention_heads": 32,
        "num_hidden_layers": 24,
        "parallel_attn": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 50304,
    },
    "falcon-7b": {
        "model_type": "RefinedWebModel",
        "architectures": ["RWForCausalLM"],
        "alibi": False,
        "apply_residual_connection_post_layernorm": False,
        "bias": False,
        "bos_token_id": 11,
        "eos_token_id": 11,
        "hidden_size": 4544,
        "layer_norm_epsilon": 1e-05,
        "multi_query": True,
        "n_head": 71,
        "n_layer": 32,
        "parallel_attn": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 65024,
    },
    "falcon-40b": {
        "model_type": "RefinedWeb",
        "architectures": ["RWForCausalLM"],
        "alibi": False,
        "apply_residual_connection_post_layernorm": False,
        "bias": False,
        "bos_token_id": 11,
        "eos_token_id": 11,
        "hidden_size": 8192,
        "layer_norm_epsilon": 1e-05,
        "n_head": 128,
        "n_head_kv": 8,
        "n_layer": 60,
        "parallel_attn": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 65024,
    },
    "falcon-180B": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "alibi": False,
        "bias": False,
        "bos_token_id": 11,
        "eos_token_id": 11,
        "hidden_size": 14848,
        "layer_norm_epsilon": 1e-05,
        "multi_query": True,
        "new_decoder_architecture": True,
        "num_attention_heads": 232,
        "num_hidden_layers": 80,
        "num_kv_heads": 8,
        "parallel_attn": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 65024,
    },
    "falcon-11B": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "activation": "gelu",
        "alibi": False,
        "bias": False,
        "bos_token_id": 11,
        "eos_token_id": 11,
        "ff_factor": 4,
        "ffn_hidden_size": 16384,
        "hidden_size": 4096,
        "layer_norm_epsilon": 1e-05,
        "max_position_embeddings": 8192,
        "multi_query": True,
        "new_decoder_architecture": True,
        "num_attention_heads": 32,
        "num_hidden_layers": 60,
        "num_kv_heads": 8,
        "num_ln_in_parallel_attn": 1,
        "parallel_attn": True,
        "rope_scaling": None,
        "rope_theta": 500042.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 65024,
    },
}
"""The config.json of the published models, each in the dialect it was first published in."""
