"""The published Falcons' shapes, as their config.json has them: what can be planned without a download."""

from collections.abc import Mapping
from typing import Any

_FALCON = {"model_type": "falcon", "vocab_size": 65024}
_RW = {**_FALCON, "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}
_NEW = {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 8}

_RW_1B = {**_RW, "vocab_size": 50304, "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 24}
_RW_7B = {**_RW, "hidden_size": 4096, "num_attention_heads": 64, "num_hidden_layers": 36}
_7B = {**_FALCON, "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32}
_11B = {
    **_NEW,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 60,
    "num_ln_in_parallel_attn": 1,
    "max_position_embeddings": 8192,
    "rope_theta": 500042.0,
    "tie_word_embeddings": False,
}
_40B = {**_NEW, "hidden_size": 8192, "num_attention_heads": 128, "num_hidden_layers": 60}
_180B = {**_NEW, "hidden_size": 14848, "num_attention_heads": 232, "num_hidden_layers": 80}

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "tiiuae/falcon-rw-1b": _RW_1B,
    "tiiuae/falcon-rw-7b": _RW_7B,
    "tiiuae/falcon-7b": _7B,
    "tiiuae/falcon-7b-instruct": _7B,
    "tiiuae/falcon-11B": _11B,
    "tiiuae/falcon-40b": _40B,
    "tiiuae/falcon-40b-instruct": _40B,
    "tiiuae/falcon-180B": _180B,
    "tiiuae/falcon-180B-chat": _180B,
}
"""Name at the hub -> the keys of config.json that decide the shape; the others have their defaults."""
