"""The benchmark's model as a GGUF file for llama.cpp. Runs in an environment with `gguf`, `numpy` and `tokenizers`.

Written by hand: llama.cpp's converter identifies a tokenizer by its text and refuses unknown ones. With one KV
head the order of rows in query_key_value (queries, key, value) is already GGUF's.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

BF16, F32, Q8_0, Q4_0 = (gguf.GGMLQuantizationType[name] for name in ("BF16", "F32", "Q8_0", "Q4_0"))
FILE_TYPES = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
CONTEXT = 2048
LAYER = {
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
    "input_layernorm": "attn_norm",
}
TOP = {"word_embeddings": "token_embd", "ln_f": "output_norm"}


def main() -> None:
    """Arguments: model folder, `bf16`, `q8_0` or `q4_0`, file."""
    model, kind, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    config = json.loads((model / "config.json").read_text())
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "falcon")
    write_config(writer, config, kind)
    write_vocabulary(writer, model, config)
    for name, values in read_tensors(model / "model.safetensors"):
        write_tensor(writer, gguf_name(name), values, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=True)
    writer.close()
    partial.rename(target)


def write_config(writer: gguf.GGUFWriter, config: dict[str, Any], kind: str) -> None:
    """Writes the configuration that llama.cpp's reader of Falcon expects."""
    writer.add_name("falcon-benchmark")
    writer.add_context_length(CONTEXT)
    writer.add_tensor_data_layout("jploski")
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(4 * config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_kv_heads"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(FILE_TYPES[kind])


def write_vocabulary(writer: gguf.GGUFWriter, model: Path, config: dict[str, Any]) -> None:
    """Writes byte-level BPE without merges, and the name of its pre-tokenizer."""
    vocab = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    end = config["eos_token_id"]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("falcon")
    writer.add_token_list(sorted(vocab, key=vocab.__getitem__))
    writer.add_token_types([control if id == end else normal for id in range(len(vocab))])
    # An empty list is left out of the file, and the reader wants one.
    writer.add_token_merges(["a a"])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def read_tensors(file: Path):  # type: ignore[no-untyped-def]
    """(name, bfloat16 bits as uint16) of a safetensors file: NumPy has no bfloat16."""
    raw = np.memmap(file, np.uint8, "r")
    size = int(raw[:8].view("<u8")[0])
    header = json.loads(bytes(raw[8 : 8 + size]))
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = (8 + size + offset for offset in entry["data_offsets"])
            yield name, raw[first:last].view("<u2").reshape(entry["shape"])


def write_tensor(writer: gguf.GGUFWriter, name: str, bits: np.ndarray, kind: str) -> None:
    """Writes one tensor: LayerNorms in float32, matrices as they are or quantized.

    In a file of 4 bits the embedding has 8, as llama.cpp's own quantizer keeps Falcon's: it is the head, too.
    """
    if bits.ndim > 1 and kind == "bf16":
        writer.add_tensor(name, bits.view(np.uint8), raw_dtype=BF16)
        return
    values = (bits.astype("<u4") << 16).view("<f4")
    if bits.ndim == 1:
        writer.add_tensor(name, values, raw_dtype=F32)
    else:
        dtype = Q4_0 if kind == "q4_0" and name.startswith("blk.") else Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, dtype), raw_dtype=dtype)


def gguf_name(name: str) -> str:
    """Maps transformers' tensor name to llama.cpp's."""
    stem, _, kind = name.removeprefix("transformer.").rpartition(".")
    if stem.startswith("h."):
        _, layer, part = stem.split(".", 2)
        return f"blk.{layer}.{LAYER[part]}.{kind}"
    return f"{TOP[stem]}.{kind}"


if __name__ == "__main__":
    main()
