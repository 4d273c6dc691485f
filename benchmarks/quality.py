"""The cost of weight formats in quality: bits per byte of the demo model on text that it never saw.

`python -m benchmarks.quality` prints the table of docs/quantization.md: with this CPU's kernels, which may round inputs
too, and with the values that the weights, and the inputs of `fp8-w8a8`, stand for.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from peregrine_kernels import Backend, DenseWeight, Linear, PagedBatch, Weight, backend_for
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.reference.rounded_inputs import RoundedInputs
from peregrine_kernels.weights import Float8Weight, dequantized
from peregrine_router.launch.model_files import demo_path
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.formats.registry import FORMATS
from peregrine_server.models.interface import ForwardContext, Model, ModelContext
from peregrine_server.models.registry import load_config, load_format, load_model

HELD_OUT = Path(__file__).parents[1] / "scripts" / "demo" / "heldout.txt"
LENGTH = 512
"""Tokens of a window, each scored after those before it."""
CPU = torch.device("cpu")


class Values(TorchBackend):
    """PyTorch's operations on the values that weights, and inputs if a format rounds them, stand for."""

    has_fp8 = True

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if not isinstance(weight, Float8Weight):
            return super().linear(weight, bias, activation)
        linear = super().linear(DenseWeight(dequantized(weight, torch.bfloat16)), bias, activation)
        return RoundedInputs(linear) if weight.rounds_inputs else linear


def nats(model: Model, ids: Tensor) -> float:
    """Nats of all tokens of ids int64[N] but the first of each window."""
    return sum(_window_nats(model, window) for window in ids.split(LENGTH) if len(window) > 1)


def _window_nats(model: Model, ids: Tensor) -> float:
    length, positions = len(ids), torch.arange(len(ids))
    batch = PagedBatch(positions, positions, torch.zeros(1, 1, dtype=torch.int64), (length,), (length,), 0)
    hidden = model.forward(ids, ForwardContext(batch, model.allocate_cache(1, LENGTH, 1)))
    return torch.nn.functional.cross_entropy(model.logits(hidden[:-1]), ids[1:], reduction="sum").item()


def load(path: Path, quantize: str | None, backend: Backend) -> Model:
    """The model in bfloat16, its weights in a format."""
    context = ModelContext(
        parallel=TensorParallel(),
        backend=backend,
        format=load_format(path, quantize, backend),
        device=CPU,
        dtype=torch.bfloat16,
    )
    return load_model(path, load_config(path), context)


def main() -> None:
    """Prints a row a format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=demo_path())
    parser.add_argument("--text", type=Path, default=HELD_OUT)
    parser.add_argument("--characters", type=int, default=50_000, help="of the text's beginning")
    options = parser.parse_args()
    text = options.text.read_text()[: options.characters]
    ids = torch.tensor(Tokenizer.load(options.model).encode(text))
    per_byte = 1 / math.log(2) / len(text.encode())
    print("| weights | this CPU's kernels | | values alone | |\n|---|---|---|---|---|")
    exact: dict[str, float] = {}
    for name in (None, *FORMATS):
        cells = []
        for kind, backend in (("kernels", backend_for(CPU)), ("values", Values())):
            bits = nats(load(options.model, name, backend), ids) * per_byte
            exact.setdefault(kind, bits)
            cells += [f"{bits:.4f}", f"{100 * (bits / exact[kind] - 1):+.2f} %"]
        print(f"| {name or 'bf16'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
