"""GGUF files of small random Falcons, written by the `gguf` package as llama.cpp's converter does."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor
from transformers import FalconForCausalLM

from checkpoints import build_model

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "7b": ("7b", {"hidden_size": 448, "num_attention_heads": 7}),
    "40b": ("40b", {"hidden_size": 256, "num_attention_heads": 8, "num_ln_in_parallel_attn": 2}),
    "11b": ("11b", {"hidden_size": 256, "num_attention_heads": 8}),
}
"""As `checkpoints.VARIANTS`, with rows of whole blocks; those of 448, as 7B's of 4544, of none of 256 weights."""
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL")
LINEARS = {
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
NORMS = {"input_layernorm": "attn_norm", "ln_mlp": "attn_norm", "ln_attn": "attn_norm_2"}
OTHERS = {
    "transformer.word_embeddings.weight": "token_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "transformer.ln_f.bias": "output_norm.bias",
    "lm_head.weight": "output.weight",
}


def mix(**types: str) -> Callable[[str], str]:
    """A type by the name of a tensor, without its layer: attn_qkv, ..., token_embd, output; "others" for the rest."""
    return lambda name: types.get(name.split(".")[-2], types["others"])


MIXES = {
    "F16": mix(others="F16"),
    "Q8_0": mix(others="Q8_0"),
    "Q4_0": mix(others="Q4_0", output="Q8_0"),
    "Q4_1": mix(others="Q4_1", output="Q6_K", token_embd="BF16"),
    "Q4_K_M of 7B": mix(others="Q5_0", ffn_down="Q4_K", token_embd="Q8_0"),
    "Q4_K_M of 40B": mix(others="Q4_K", attn_qkv="Q5_K", ffn_down="Q6_K"),
    "Q4_K and Q4_0": mix(others="Q4_0", ffn_down="Q4_K"),
    "IQ4_NL": mix(others="IQ4_NL", attn_qkv="Q5_1", output="Q5_K"),
    "F32 and Q4_0": mix(others="Q4_0", ffn_up="F32", ffn_down="BF16"),
}
"""Types that llama-quantize chooses together, and others that it could."""


def write_gguf(
    path: Path,
    variant: str = "7b",
    types: Callable[[str], str] = MIXES["Q4_0"],
    *,
    metadata: Mapping[str, object] | None = None,
    tokenizer: tokenizers.Tokenizer | None = None,
    max_tensors: int = 0,
    **overrides: Any,
) -> FalconForCausalLM:
    """Writes a file, or a set with `max_tensors` in each; returns the model of the values that it stands for.

    `metadata`: keys that are written besides.
    """
    like, shape = VARIANTS[variant]
    model = build_model(like, **{"num_hidden_layers": 1, **shape, **overrides})
    writer = gguf.GGUFWriter(path, "falcon", split_max_tensors=max_tensors)
    write_metadata(writer, model, dict(metadata or {}))
    if tokenizer is not None:
        write_tokenizer(writer, tokenizer, model.config.eos_token_id)
    generator = np.random.default_rng(0)
    tensors = dict(model.named_parameters())
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    for name, parameter in tensors.items():
        add_tensor(writer, gguf_name(name), parameter, types, model, generator)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return model


def add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    parameter: Tensor,
    types: Callable[[str], str],
    model: FalconForCausalLM,
    generator: np.random.Generator,
) -> None:
    """Writes a tensor; the parameter takes the values that are stored."""
    order = qkv_order(model) if name.endswith("attn_qkv.weight") else torch.arange(len(parameter))
    values = parameter.detach()[order]
    kind = Type.F32 if values.dim() == 1 else Type[types(name)]
    stored = encode(values.numpy(), kind, generator)
    with torch.no_grad():
        parameter[order] = torch.from_numpy(gguf.quants.dequantize(stored, kind)).view(parameter.shape)
    writer.add_tensor(name, stored, raw_dtype=kind)


def encode(values: np.ndarray, kind: Type, generator: np.random.Generator) -> np.ndarray:
    """The blocks of values; of a type that the package does not write, blocks of random codes on the same scale."""
    try:
        stored: np.ndarray = gguf.quants.quantize(values, kind)
        return stored
    except NotImplementedError:
        return random_blocks(values.shape, kind, generator, float(values.std()))


def random_blocks(shape: tuple[int, ...], kind: Type, generator: np.random.Generator, size: float) -> np.ndarray:
    """uint8[rows, bytes] that stand for values of about that standard deviation."""
    per_block, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (shape[0], shape[1] // per_block, num_bytes), dtype=np.uint8)
    starts = {Type.Q6_K: (208,), Type.IQ4_NL: (0,)}.get(kind, (0, 2))
    typical = {Type.Q6_K: 1400, Type.IQ4_NL: 70, Type.Q4_K: 300, Type.Q5_K: 600}[kind]
    for start in starts:
        factors = size / typical * generator.uniform(0.5, 1.5, blocks.shape[:2])
        # The minimum is added to codes that are never negative.
        scale = factors if start != 2 else factors * (typical / 40)
        blocks[..., start : start + 2] = scale.astype(np.float16)[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


def qkv_order(model: FalconForCausalLM) -> Tensor:
    """The model's rows in the order of the file: all queries, all keys, all values."""
    config: Any = model.config
    num_groups = config.num_kv_heads if config.new_decoder_architecture else 1
    head_dim = config.hidden_size // config.num_attention_heads
    heads = torch.arange(config.num_attention_heads + 2 * num_groups).view(num_groups, -1)
    order = torch.cat([heads[:, :-2].flatten(), heads[:, -2], heads[:, -1]])
    rows: Tensor = (order[:, None] * head_dim + torch.arange(head_dim)).flatten()
    return rows


def gguf_name(name: str) -> str:
    """transformers' name -> llama.cpp's."""
    if name in OTHERS:
        return OTHERS[name]
    _, _, layer, rest = name.split(".", 3)
    stem, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{ {**LINEARS, **NORMS}[stem] }.{kind}"


def write_metadata(writer: gguf.GGUFWriter, model: FalconForCausalLM, more: dict[str, object]) -> None:
    """The keys that the converter writes."""
    config: Any = model.config
    writer.add_context_length(2048)
    writer.add_tensor_data_layout("jploski")
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_kv_heads if config.new_decoder_architecture else 1)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if (theta := config.rope_parameters["rope_theta"]) != 10000:
        writer.add_rope_freq_base(theta)
    for key, value in more.items():
        add: dict[type, Callable[[str, Any], object]] = {str: writer.add_string, bool: writer.add_bool}
        add[type(value)](key, value)


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: tokenizers.Tokenizer, end: Any) -> None:
    """Tokens, their types and merges, and the end of text."""
    vocab, added = tokenizer.get_vocab(), tokenizer.get_added_tokens_decoder()
    tokens = sorted(vocab, key=vocab.__getitem__)
    kinds = {
        id: gguf.TokenType.CONTROL if token.special else gguf.TokenType.USER_DEFINED for id, token in added.items()
    }
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("falcon")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(id, gguf.TokenType.NORMAL) for id in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in merges_of(tokenizer)])
    writer.add_eos_token_id(end)


def merges_of(tokenizer: tokenizers.Tokenizer) -> list[list[str]]:
    """The pairs of a tokenizer of byte pair encoding."""
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges
