"""The names and shapes of a Falcon checkpoint's tensors."""

import re
from collections.abc import Container
from dataclasses import replace

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.formats.interface import WeightFormat
from peregrine_server.models.loading.tensor_spec import TensorSpec

PREFIX = "transformer."
"""Left off by some checkpoints, and by every name below."""
EMBEDDING = "word_embeddings.weight"
HEAD = "lm_head.weight"
IGNORED = re.compile(
    r"\b(rotary|rotary_emb|maybe_rotary)\.inv_freq$|\b(self_attention|attention)\.(masked_)?bias$|^v_head\."
)
"""Tensors that generate nothing: tables and causal masks that older code saved, and TRL's value head."""


LINEAR = re.compile(
    r"^(h\.\d+\.(self_attention\.(query_key_value|dense)|mlp\.(dense_h_to_4h|dense_4h_to_h|act))|lm_head|word_embeddings)\."
)
"""Beginning of the names of a linear's tensors, a quantized table's or head's and an activation's among them."""


def expected_tensors(config: FalconConfig, format: WeightFormat) -> dict[str, TensorSpec]:
    """Every tensor that a checkpoint of this config holds, by name without the `transformer.` prefix."""
    hidden, ffn = config.hidden_size, config.ffn_size
    qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    tensors = {EMBEDDING: TensorSpec((config.vocab_size, hidden))}
    for layer in range(config.num_layers):
        linears = {
            "self_attention.query_key_value": (qkv, hidden),
            "self_attention.dense": (hidden, hidden),
            "mlp.dense_h_to_4h": (ffn, hidden),
            "mlp.dense_4h_to_h": (hidden, ffn),
        }
        for name, shape in linears.items():
            tensors |= format.expected(f"h.{layer}.{name}", *shape)
        if config.has_bias:
            tensors |= {f"h.{layer}.{name}.bias": TensorSpec(shape[:1]) for name, shape in linears.items()}
        for norm in layer_norms(config):
            tensors |= {f"h.{layer}.{norm}.{kind}": TensorSpec((hidden,)) for kind in ("weight", "bias")}
    tensors |= {f"ln_f.{kind}": TensorSpec((hidden,)) for kind in ("weight", "bias")}
    return tensors if config.is_tied else tensors | {HEAD: TensorSpec((config.vocab_size, hidden))}


def file_name(name: str) -> str:
    """The name of a tensor in published checkpoints."""
    return name if name == HEAD else PREFIX + name


def layer_norms(config: FalconConfig) -> tuple[str, ...]:
    """Names of a block's LayerNorms: attention's, then the MLP's where it has its own."""
    if not config.is_parallel:
        return "input_layernorm", "post_attention_layernorm"
    return ("ln_attn", "ln_mlp") if config.num_layer_norms == 2 else ("input_layernorm",)


def confirm_layer_norms(config: FalconConfig, names: Container[str]) -> FalconConfig:
    """The config with the number of LayerNorms that the checkpoint has: parallel blocks have one or two, and
    config.json may leave the number out."""
    for num, name in (1, "input_layernorm"), (2, "ln_attn"):
        if config.is_parallel and f"h.0.{name}.weight" in names:
            return replace(config, num_layer_norms=num)
    return config
