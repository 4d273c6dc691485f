"""How many bits the demo Falcon needs for a byte of English that it never saw, beside `xz -9`.

`python scripts/demo/bits_per_byte.py` measures the shipped model on heldout.txt, in bfloat16 and float32.
Every byte of the file counts. Every token is scored once, with at least `--context` tokens before it
where the text has as many; the first is predicted from the end-of-text token.
"""

import argparse
import lzma
import math
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

HELD_OUT = Path(__file__).parent / "heldout.txt"
SHIPPED = Path(__file__).parents[2] / "server" / "peregrine_server" / "demo"


def window_nats(model: PreTrainedModel, ids: Tensor, num_scored: int) -> float:
    """Nats of the last `num_scored` tokens of one window."""
    logits = model(ids[None, :-1]).logits[0, -num_scored:].float()
    return torch.nn.functional.cross_entropy(logits, ids[-num_scored:], reduction="sum").item()


@torch.no_grad()
def text_nats(model: PreTrainedModel, ids: Tensor, context: int, stride: int) -> float:
    """Nats of all tokens but the first, in windows that move by `stride`."""
    nats = 0.0
    for begin in range(1, len(ids), stride):
        end = min(begin + stride, len(ids))
        nats += window_nats(model, ids[max(0, begin - context) : end], end - begin)
    return nats


def encode(folder: Path, text: str) -> Tensor:
    """End of text, then the text; the tokenizer loses nothing."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    return torch.tensor([tokenizer.eos_token_id, *ids])


def main() -> None:
    """Measure and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--text", type=Path, default=HELD_OUT)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--stride", type=int, default=512)
    args = parser.parse_args()
    data = args.text.read_bytes()
    ids = encode(args.model, data.decode())
    print(f"{args.text.name}: {len(data):,} bytes, {len(ids) - 1:,} tokens; bits per byte:")
    print(f"  xz -9     {8 * len(lzma.compress(data, preset=9)) / len(data):.4f}")
    for dtype in (torch.bfloat16, torch.float32):
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)  # in evaluation mode
        bits = text_nats(model, ids, args.context, args.stride) / math.log(2)
        print(f"  {str(dtype)[6:]:9} {bits / len(data):.4f}", flush=True)


if __name__ == "__main__":
    main()
