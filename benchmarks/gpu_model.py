"""Falcons with random weights, made on the GPU: the time of a step does not depend on the weights."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from peregrine_kernels.aot.shapes import Shape
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.load import Loader
from peregrine_server.models.falcon.model import Falcon, FalconContext
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.interface import ModelContext
from peregrine_server.models.loading.read_ahead import Item, Part
from peregrine_server.models.loading.slices import Slice

CUDA = torch.device("cuda", 0)
DTYPE = torch.bfloat16


class RandomWeights:
    """A stand-in for a checkpoint's weights: random tensors of the same shapes, made on the device."""

    def __init__(self, config: FalconConfig) -> None:
        self.config = config

    dtype = DTYPE

    def shape(self, name: str) -> tuple[int, ...]:
        raise NotImplementedError("only quantized checkpoints are asked for shapes")

    def load_each(self, load: Callable[[Item], Part], items: Sequence[Item]) -> Iterable[Part]:
        return map(load, items)

    def rows(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        width = self.config.hidden_size
        return self._random(sum(rows.size for _, rows in parts), width)

    def columns(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        return self._random(self.config.hidden_size, sum(columns.size for _, columns in parts))

    def vector(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        return self._random(1, sum(part.size for _, part in parts))[0]

    def _random(self, rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, device=CUDA, dtype=DTYPE).normal_(std=0.02)


def hf_config(shape: Shape) -> dict[str, object]:
    """The config.json of a shape, as transformers writes it."""
    return {
        "model_type": "falcon",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_kv_heads": shape.num_kv_heads,
        "ffn_hidden_size": shape.ffn_size,
        "new_decoder_architecture": shape.num_kv_heads > 1 and shape.is_parallel,
        "multi_query": shape.num_kv_heads == 1,
        "num_ln_in_parallel_attn": shape.num_layer_norms,
        "parallel_attn": shape.is_parallel,
        "alibi": shape.has_alibi,
        "bias": shape.has_alibi,
    }


def random_falcon(shape: Shape) -> Falcon:
    """A whole model on one rank, with random weights."""
    config = FalconConfig.from_hf(hf_config(shape))
    context = ModelContext(
        parallel=TensorParallel(), backend=TritonBackend(), format=DenseFormat(), device=CUDA, dtype=DTYPE
    )
    return Loader(FalconContext.of(context, config), RandomWeights(config)).falcon()
