"""Write a checkpoint of train.py as the model folder that the package ships, in bfloat16.

`python scripts/demo/export.py --work build/demo` takes the last checkpoint: the learning rate has come to zero there.
"""

import argparse
from pathlib import Path

import torch
from falcon import falcon_config
from tokenizers import Tokenizer
from transformers import FalconForCausalLM, GenerationConfig
from vocabulary import END_OF_TEXT_ID, save_tokenizer

SHIPPED = Path(__file__).parents[2] / "server" / "peregrine_server" / "demo"
MAX_BYTES = 16_000_000
TEMPERATURE = 0.25
"""Cool: so small a model begins an answer that it knows, and loses the thread with an unlikely word."""


def load_checkpoint(path: Path) -> FalconForCausalLM:
    """The model of a checkpoint, in bfloat16."""
    state = torch.load(path, weights_only=True)
    model = FalconForCausalLM(falcon_config())
    model.load_state_dict(state["model"])
    print(f"step {state['step']}, {state['tokens']:,} tokens, {state['trained_s'] / 60:.1f} minutes")
    model.bfloat16()
    return model


def export(model: FalconForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """config.json, generation_config.json, model.safetensors and the tokenizer's two files."""
    sampling = {"do_sample": True, "temperature": TEMPERATURE}
    model.generation_config = GenerationConfig(eos_token_id=END_OF_TEXT_ID, **sampling)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    weights = folder / "model.safetensors"
    weights.chmod(0o644)  # safetensors writes it for its owner alone
    size = weights.stat().st_size
    assert size <= MAX_BYTES, f"model.safetensors has {size:,} bytes"
    assert model.config.num_kv_heads == 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of the checkpoints")
    parser.add_argument("--checkpoint", default="last.pt", help="or best.pt: the best on the validation novels")
    parser.add_argument("--to", type=Path, default=SHIPPED, help="model folder to write")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    export(load_checkpoint(args.work / args.checkpoint), tokenizer, args.to)


if __name__ == "__main__":
    main()
