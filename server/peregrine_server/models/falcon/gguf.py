"""A Falcon in GGUF files, as llama.cpp's converter writes it: its config.json, and the places of its tensors.

Multi-query and grouped-query Falcons alone: llama.cpp's graph has neither ALiBi nor biases (src/models/falcon.cpp).
Imports no torch.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.published import PUBLISHED
from peregrine_server.models.falcon.tensors import EMBEDDING, HEAD
from peregrine_server.models.formats.checkpoints.gguf_types import quantization_config
from peregrine_server.models.loading.gguf_header import GgufHeader, GgufTensor
from peregrine_server.models.loading.gguf_layout import Place
from peregrine_server.models.loading.slices import Run, Slice

LAYOUT = "jploski"
"""The order of rows that the converter names: all query heads, all keys, all values."""
_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_kv_heads": "attention.head_count_kv",
    "ffn_hidden_size": "feed_forward_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "max_position_embeddings": "context_length",
    "rope_theta": "rope.freq_base",
}
"""config.json's keys -> those of GGUF, after the architecture."""
_SHAPE = "hidden_size", "num_hidden_layers", "num_attention_heads", "num_kv_heads"
_UNSAID = "max_position_embeddings", "rope_theta"
"""Keys of which the converter writes a constant (2048) or nothing: those of the published model of this shape count."""
_LINEARS = {
    "attn_qkv": "self_attention.query_key_value",
    "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_TOGETHER = "attn_output", "ffn_down"
"""Linears that some devices multiply as one."""
_OTHERS = {
    "token_embd.weight": EMBEDDING,
    "output.weight": HEAD,
    "output_norm.weight": "ln_f.weight",
    "output_norm.bias": "ln_f.bias",
}
_OF_LAYER = re.compile(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)")


def hf_config(headers: Sequence[GgufHeader]) -> dict[str, Any]:
    """config.json of the model in all the files of a set, its `quantization_config` with it.

    Raises ConfigError, UnsupportedModel.
    """
    metadata = headers[0].metadata
    if (layout := metadata.get("falcon.tensor_data_layout")) != LAYOUT:
        raise UnsupportedModel(f"falcon.tensor_data_layout {layout!r:.80} is not read; {LAYOUT} is")
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    hf: dict[str, Any] = {key: metadata.get(f"falcon.{name}") for key, name in _KEYS.items()}
    hf |= {key: value for key, value in _published(hf).items() if key in _UNSAID}
    hf |= {name: metadata.get(f"tokenizer.ggml.{name}") for name in ("bos_token_id", "eos_token_id")}
    hf |= {
        "model_type": "falcon",
        "vocab_size": tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else None,
        "new_decoder_architecture": hf["num_kv_heads"] != 1,
        "multi_query": True,
        "num_ln_in_parallel_attn": 2 if "blk.0.attn_norm_2.weight" in tensors else 1,
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_scaling": _rope_scaling(metadata),
        "quantization_config": _quantization(tensors),
    }
    hf = {key: value for key, value in hf.items() if value is not None}
    places = FalconGguf(FalconConfig.from_hf(hf))
    for name in tensors:
        places.place(name)
    return hf


def _published(hf: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published model of that shape; none, of another one."""
    same = (each for each in PUBLISHED.values() if all(each.get(key) == hf[key] for key in _SHAPE))
    return next(same, {})


def _rope_scaling(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = metadata.get("falcon.rope.scaling.type", "none")
    return None if kind == "none" else {"rope_type": kind, "factor": metadata.get("falcon.rope.scaling.factor")}


def _quantization(tensors: Mapping[str, GgufTensor]) -> dict[str, Any] | None:
    types = {}
    for name, tensor in tensors.items():
        if (found := _OF_LAYER.fullmatch(name)) and found[2] in _LINEARS:
            types[_linear(found[1], found[2])] = tensor.type.name
    layers = sorted({int(found[1]) for name in tensors if (found := _OF_LAYER.fullmatch(name))})
    together = [[_linear(str(layer), name) for name in _TOGETHER] for layer in layers]
    return quantization_config(types, together)


def _linear(layer: str, name: str) -> str:
    return f"h.{int(layer)}.{_LINEARS[name]}"


class FalconGguf:
    """The `GgufLayout` of a Falcon."""

    def __init__(self, config: FalconConfig) -> None:
        has_two = config.num_layer_norms == 2
        self._norms = {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"} if has_two else {"attn_norm": "input_layernorm"}
        self._qkv = _qkv_rows(config)

    def place(self, name: str) -> Place:
        if name in _OTHERS:
            return Place(_OTHERS[name])
        found = _OF_LAYER.fullmatch(name)
        layer, tensor, kind = found.groups() if found else ("", "", "")
        if tensor in _LINEARS and kind == "weight":
            rows = self._qkv if tensor == "attn_qkv" else None
            return Place(f"{_linear(layer, tensor)}.weight", rows, is_linear=True)
        if tensor in self._norms:
            return Place(f"h.{int(layer)}.{self._norms[tensor]}.{kind}")
        raise UnsupportedModel(f"tensor {name!r:.200} is in no Falcon that llama.cpp writes; give the original model")


def _qkv_rows(config: FalconConfig) -> Slice:
    """The rows of query_key_value, KV group by KV group, at their places in [all q | all k | all v]."""
    group, num_heads, num_groups = config.group_size, config.num_heads, config.num_kv_heads
    runs = []
    for index in range(num_groups):
        start = index * (group + 2)
        runs += [
            Run(index * group, start, group),
            Run(num_heads + index, start + group, 1),
            Run(num_heads + num_groups + index, start + group + 1, 1),
        ]
    return Slice(num_heads + 2 * num_groups, tuple(runs)).scaled(config.head_dim)
