"""The benchmark's model: a seeded random 1.15 B multi-query Falcon, written once in transformers' format."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from peregrine_server.models.falcon.config import FalconConfig

SEED = 20260
CPU = torch.device("cpu")
CONFIG = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "alibi": False,
    "bias": False,
    "bos_token_id": 11,
    "eos_token_id": 11,
    "hidden_size": 2048,
    "layer_norm_epsilon": 1e-5,
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 24,
    # Written out: transformers 5 and its readers otherwise take the head count.
    "num_kv_heads": 1,
    "parallel_attn": True,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 65024,
}


def make_checkpoint(path: Path, config: Mapping[str, object] = CONFIG, device: torch.device = CPU) -> FalconConfig:
    """Writes a model, drawn on `device`, to `path` unless it exists (the benchmark's own: 2.3 GB); returns its
    config."""
    if not (path / "model.safetensors").exists():
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(config, indent=2))
        partial = path / "model.safetensors.partial"
        save_file(random_tensors(FalconConfig.from_hf(config), device), partial, metadata={"format": "pt"})
        partial.rename(path / "model.safetensors")
    return FalconConfig.from_hf(json.loads((path / "config.json").read_text()))


def random_tensors(config: FalconConfig, device: torch.device) -> dict[str, Tensor]:
    """Every tensor of the model in bfloat16: matrices normal with deviation 0.02, LayerNorms the identity."""
    hidden, ffn = config.hidden_size, config.ffn_size
    rows = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    generator = torch.Generator(device).manual_seed(SEED)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).mul_(0.02).bfloat16().cpu()

    tensors = {"transformer.word_embeddings.weight": matrix(config.vocab_size, hidden)}
    norms = ["transformer.ln_f"]
    for i in tqdm(range(config.num_layers), desc="making the random model", leave=False):
        at = f"transformer.h.{i}."
        tensors[at + "self_attention.query_key_value.weight"] = matrix(rows, hidden)
        tensors[at + "self_attention.dense.weight"] = matrix(hidden, hidden)
        tensors[at + "mlp.dense_h_to_4h.weight"] = matrix(ffn, hidden)
        tensors[at + "mlp.dense_4h_to_h.weight"] = matrix(hidden, ffn)
        norms.append(at + "input_layernorm")
    for name in norms:
        tensors[name + ".weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        tensors[name + ".bias"] = torch.zeros(hidden, dtype=torch.bfloat16)
    return tensors
