"""A Falcon's shape, from config.json in any of its dialects. Imports no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peregrine_server.models.errors import ConfigError, UnsupportedModel
from peregrine_server.models.interface import LinearWeights
from peregrine_server.models.loading.config_reader import ConfigReader

SUPPORTED = "falcon-rw-1b, falcon-rw-7b, falcon-7b, falcon-40b, falcon-180B, falcon-11B and models fine-tuned from them"

MAX_LAYERS = 1000
"""A bound on layers: no published model comes near, more is a damaged or hostile file."""

_FALCON_TYPES = ("falcon", "RefinedWebModel", "RefinedWeb")
_OTHER_TASKS = re.compile(r"For(SequenceClassification|TokenClassification|QuestionAnswering)$")
"""Found in architectures without a language model's head. Any other name, such as a wrapper's, loads: transformers goes
by model_type."""
_RELATIVES = {
    "llama": "Falcon3 is of this kind",
    "falcon_h1": "Falcon-H1",
    "falcon_mamba": "Falcon Mamba",
    "mamba": "Falcon Mamba is of this kind",
    "llava_next": "Falcon 2 VLM is of this kind",
}
_ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
"""Names of transformers' activations; every published Falcon has "gelu", the exact one."""


@dataclass(frozen=True, slots=True)
class FalconConfig:
    """A Falcon's shape. Sizes are counts; `from_hf` validates them."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """1 is multi-query, `num_heads` is multi-head."""
    ffn_size: int
    activation: str
    is_parallel: bool
    """Attention and MLP read the same residual; otherwise the MLP reads attention's result."""
    num_layer_norms: int
    """LayerNorms of a block: 1 or 2. A sequential block always has 2."""
    has_bias: bool
    """Whether the linear layers have biases; LayerNorms always have."""
    has_alibi: bool
    """ALiBi in place of rotary positions."""
    rope_theta: float
    rope_factor: float
    """Factor of linear scaling, which divides positions by it, or of dynamic scaling; 1 is off."""
    is_rope_dynamic: bool
    """Dynamic NTK scaling: the base grows beyond `max_positions`."""
    max_positions: int
    """The length the model was trained for; nothing breaks beyond it."""
    layer_norm_epsilon: float
    is_tied: bool
    """The output head is the embedding table."""
    dtype: str
    """The type the checkpoint was published in: "bfloat16", "float16" or "float32"."""

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def group_size(self) -> int:
        """Query heads of one KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def linear_weights(self) -> LinearWeights:
        """Weights that tokens are multiplied with, without padding."""
        attention = (2 * self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        layer = self.hidden_size * (attention + 2 * self.ffn_size)
        return LinearWeights(self.num_layers * layer, self.vocab_size * self.hidden_size)

    def summary(self) -> str:
        """Layers, heads and vocabulary, for the start-up lines."""
        kv_heads = f"{self.num_kv_heads} KV head{'s' * (self.num_kv_heads > 1)}"
        return f"{self.num_layers} layers, {self.num_heads} heads, {kv_heads}, vocabulary {self.vocab_size:,}"

    @staticmethod
    def from_hf(hf: Mapping[str, Any]) -> "FalconConfig":
        """Reads config.json's content in any of its dialects (old RefinedWeb, transition, transformers' own).

        Raises UnsupportedModel for another kind of model, ConfigError for values that make no Falcon.
        """
        _check_supported(hf)
        read = ConfigReader(hf)
        hidden_size = read.size("hidden_size", "n_embed", "n_embd")
        num_heads = read.size("num_attention_heads", "n_head")
        is_new = read.flag("new_decoder_architecture", default=hf.get("n_head_kv") is not None)
        is_parallel = is_new or read.flag("parallel_attn", default=True)
        has_alibi = read.flag("alibi", default=False)
        rope_theta, rope_factor, is_rope_dynamic = (10000.0, 1.0, False) if has_alibi else _rope(hf)
        config = FalconConfig(
            vocab_size=read.size("vocab_size", default=65024),
            hidden_size=hidden_size,
            num_layers=read.size("num_hidden_layers", "n_layer", limit=MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=_num_kv_heads(read, num_heads, is_new),
            ffn_size=read.size("ffn_hidden_size", default=4 * hidden_size),
            activation=read.text("activation", default="gelu"),
            is_parallel=is_parallel,
            num_layer_norms=_num_layer_norms(read, is_new, is_parallel),
            has_bias=read.flag("bias", default=False),
            has_alibi=has_alibi,
            rope_theta=rope_theta,
            rope_factor=rope_factor,
            is_rope_dynamic=is_rope_dynamic,
            max_positions=read.size("max_position_embeddings", default=2048),
            layer_norm_epsilon=read.positive("layer_norm_epsilon", default=1e-5),
            is_tied=read.flag("tie_word_embeddings", default=True),
            dtype=_dtype(read),
        )
        _check_consistent(config)
        return config


def _check_supported(hf: Mapping[str, Any]) -> None:
    model_type = hf.get("model_type")
    if model_type not in _FALCON_TYPES:
        relative = _RELATIVES.get(str(model_type))
        which = f"model_type {model_type!r:.80}" + (f" ({relative})" if relative else "")
        raise UnsupportedModel(f"{which} is not supported; supported are {SUPPORTED}")
    given = hf.get("architectures") or []
    architectures = [str(each) for each in given] if isinstance(given, list) else [str(given)]
    if architectures and all(map(_OTHER_TASKS.search, architectures)):
        raise UnsupportedModel(f"architecture {architectures!r:.80} generates no text; supported are {SUPPORTED}")
    if hf.get("apply_residual_connection_post_layernorm"):
        raise UnsupportedModel("apply_residual_connection_post_layernorm is not supported: no published Falcon sets it")


def _num_kv_heads(read: ConfigReader, num_heads: int, is_new: bool) -> int:
    """Under plain multi-query the file's number means nothing: transformers 5 writes `num_heads` there."""
    if not is_new and read.flag("multi_query", default=True):
        return 1
    num_kv_heads = read.size("num_kv_heads", "n_head_kv", default=num_heads)
    if not is_new and num_kv_heads != num_heads:
        raise ConfigError(f"num_kv_heads {num_kv_heads} without multi_query must equal the {num_heads} heads")
    return num_kv_heads


def _num_layer_norms(read: ConfigReader, is_new: bool, is_parallel: bool) -> int:
    if not is_parallel:
        return 2
    if not is_new:
        return 1
    num = read.size("num_ln_in_parallel_attn", default=2)
    if num > 2:
        raise ConfigError(f"num_ln_in_parallel_attn must be 1 or 2, not {num}")
    return num


def _rope(hf: Mapping[str, Any]) -> tuple[float, float, bool]:
    """(theta, factor, whether scaling is dynamic).

    Newer files hold them in rope_parameters, older ones in rope_theta and rope_scaling, which wins where both are.
    """
    scaling = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if not isinstance(scaling, dict):
        raise ConfigError(f"rope_parameters must be an object, not {scaling!r:.80}")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ("default", "linear", "dynamic"):
        raise UnsupportedModel(
            f"rotary positions of type {kind!r:.80} are not supported; default, linear and dynamic are"
        )
    theta = ConfigReader(scaling).positive(
        "rope_theta", default=ConfigReader(hf).positive("rope_theta", default=10000.0)
    )
    if kind == "default":
        return theta, 1.0, False
    if scaling.get("factor") is None:
        raise ConfigError(f"rope_scaling of type {kind} has no factor: add the one that the model was trained with")
    return theta, ConfigReader(scaling).positive("factor", default=1.0), kind == "dynamic"


def _dtype(read: ConfigReader) -> str:
    name = read.text("dtype", default=read.text("torch_dtype", default="bfloat16")).removeprefix("torch.")
    return name if name in ("bfloat16", "float16", "float32") else "bfloat16"


def _check_consistent(config: FalconConfig) -> None:
    if config.hidden_size % config.num_heads:
        raise ConfigError(f"hidden_size {config.hidden_size} is not divisible by its {config.num_heads} heads")
    if config.num_heads % config.num_kv_heads:
        raise ConfigError(f"{config.num_heads} heads are not divisible by {config.num_kv_heads} KV heads")
    if not config.has_alibi and config.head_dim % 2:
        raise ConfigError(f"rotary positions need an even head dimension, not {config.head_dim}")
    if config.is_rope_dynamic and config.head_dim < 4:
        raise ConfigError(f"dynamic rotary positions need a head dimension of 4 or more, not {config.head_dim}")
    if config.activation not in _ACTIVATIONS:
        raise ConfigError(f"activation {config.activation!r:.80} is not one of {', '.join(_ACTIVATIONS)}")
