"""From a checkpoint's tensors to one rank's: every name accounted for, then streamed into place piece by piece."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from peregrine_server.models.falcon import footprint as memory
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import Slice, whole
from peregrine_server.models.loading.checkpoint import (
    CheckpointError,
    TensorFile,
    TensorInfo,
    close_all,
    open_checkpoint,
)

Progress = Callable[[int, int], None]
"""Called with (bytes loaded, bytes in all) of this rank, in the serving dtype."""

PIECE_BYTES = 4 * 2**20
"""Of the serving dtype: what is staged on the host at a time."""

_EMBEDDING = "word_embeddings.weight"
_HEAD = "lm_head.weight"
_ANOTHER = "config.json may be of another model"
_HARMLESS = re.compile(r"\b(rotary|rotary_emb|maybe_rotary)\.inv_freq$|\b(self_attention|attention)\.(masked_)?bias$")
"""Buffers that older code saved with the weights: recomputable tables and causal masks."""


@dataclass(frozen=True, slots=True)
class _Source:
    file: TensorFile
    name: str
    """In the file."""
    info: TensorInfo


class Weights:
    """A checkpoint that was checked against a config, as a source of one rank's tensors. A context manager."""

    def __init__(
        self,
        path: Path,
        config: FalconConfig,
        num_ranks: int,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress | None = None,
    ) -> None:
        """Opens the checkpoint in directory `path` and accounts for every tensor. Raises CheckpointError.

        `config` is then the given one with the LayerNorms that the checkpoint has.
        """
        self._device, self._dtype, self._progress = device, dtype, progress
        self._files = open_checkpoint(path)
        try:
            sources = _by_name(self._files)
            self.config = _confirm_layer_norms(config, sources)
            self._sources = _check(path, sources, expected_tensors(self.config), self.config.is_tied)
        except CheckpointError:
            close_all(self._files)
            raise
        self._loaded_bytes = 0
        self._total_bytes = memory.weight_bytes(self.config, num_ranks, str(dtype).removeprefix("torch."))

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: object) -> None:
        close_all(self._files)

    def rows(self, *parts: tuple[str, Slice]) -> Tensor:
        """Row slices of matrices of equal width, one below the other: [sum of the slices' sizes, width]."""
        width = self._sources[parts[0][0]].info.shape[1]
        out, start = self._empty(sum(rows.size for _, rows in parts), width), 0
        for name, rows in parts:
            self._fill(out.narrow(0, start, rows.size), name, rows, whole(width))
            start += rows.size
        return out

    def columns(self, *parts: tuple[str, Slice]) -> Tensor:
        """Column slices of matrices of equal height, side by side: [height, sum of the slices' sizes]."""
        height = self._sources[parts[0][0]].info.shape[0]
        out, start = self._empty(height, sum(columns.size for _, columns in parts)), 0
        for name, columns in parts:
            self._fill(out.narrow(1, start, columns.size), name, whole(height), columns)
            start += columns.size
        return out

    def vector(self, *parts: tuple[str, Slice]) -> Tensor:
        """Slices of vectors, one after the other: [sum of the slices' sizes]."""
        out, start = self._empty(sum(rows.size for _, rows in parts), 1), 0
        for name, rows in parts:
            self._fill(out.narrow(0, start, rows.size), name, rows, whole(1))
            start += rows.size
        return out.view(-1)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._dtype, device=self._device)

    def _fill(self, out: Tensor, name: str, rows: Slice, columns: Slice) -> None:
        """out [rows.size, columns.size] becomes that slice of the tensor, a piece of whole rows at a time."""
        source = self._sources[name]
        if rows.is_padded or columns.is_padded:
            out.zero_()
        for across in columns.runs:
            step = max(1, PIECE_BYTES // (across.length * self._dtype.itemsize))
            for down in rows.runs:
                for start in range(0, down.length, step):
                    count = min(step, down.length - start)
                    piece = out.narrow(0, down.target + start, count).narrow(1, across.target, across.length)
                    source.file.copy(source.name, down.source + start, across.source, piece)
                    self._report(piece.numel())
        source.file.release()
        self._report(out.numel() - rows.num_real * columns.num_real)

    def _report(self, num_elements: int) -> None:
        self._loaded_bytes += num_elements * self._dtype.itemsize
        if self._progress and num_elements:
            self._progress(self._loaded_bytes, self._total_bytes)


def expected_tensors(config: FalconConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor a checkpoint of this config holds, by name without the `transformer.` prefix."""
    hidden, ffn = config.hidden_size, config.ffn_size
    qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {_EMBEDDING: (config.vocab_size, hidden)}
    for layer in range(config.num_layers):
        linears = {
            "self_attention.query_key_value": (qkv, hidden),
            "self_attention.dense": (hidden, hidden),
            "mlp.dense_h_to_4h": (ffn, hidden),
            "mlp.dense_4h_to_h": (hidden, ffn),
        }
        shapes |= {f"h.{layer}.{name}.weight": shape for name, shape in linears.items()}
        if config.has_bias:
            shapes |= {f"h.{layer}.{name}.bias": shape[:1] for name, shape in linears.items()}
        for norm in layer_norms(config):
            shapes |= {f"h.{layer}.{norm}.{kind}": (hidden,) for kind in ("weight", "bias")}
    shapes |= {"ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
    return shapes if config.is_tied else shapes | {_HEAD: (config.vocab_size, hidden)}


def layer_norms(config: FalconConfig) -> tuple[str, ...]:
    """Names of a block's LayerNorms: attention's, then the MLP's where it has its own."""
    if not config.is_parallel:
        return "input_layernorm", "post_attention_layernorm"
    return ("ln_attn", "ln_mlp") if config.num_layer_norms == 2 else ("input_layernorm",)


def _by_name(files: list[TensorFile]) -> dict[str, _Source]:
    """Every tensor of every file under its canonical name."""
    sources: dict[str, _Source] = {}
    for file in files:
        for name, info in file.tensors.items():
            canonical = name.removeprefix("transformer.")
            if canonical in sources:
                raise CheckpointError(f"tensor {name!r:.200} is in {sources[canonical].file.path} and in {file.path}")
            sources[canonical] = _Source(file, name, info)
    return sources


def _confirm_layer_norms(config: FalconConfig, sources: dict[str, _Source]) -> FalconConfig:
    """Parallel blocks have one LayerNorm or two, and config.json may leave the number out: the weights decide."""
    for num, name in (1, "input_layernorm"), (2, "ln_attn"):
        if config.is_parallel and f"h.0.{name}.weight" in sources:
            return replace(config, num_layer_norms=num)
    return config


def _check(
    path: Path, sources: dict[str, _Source], expected: dict[str, tuple[int, ...]], is_tied: bool
) -> dict[str, _Source]:
    """The sources of the expected tensors, once there is one for each and none is left over."""
    sources = {name: source for name, source in sources.items() if not _HARMLESS.search(name)}
    if is_tied and _EMBEDDING not in sources and _HEAD in sources:
        sources[_EMBEDDING] = sources[_HEAD]
    if is_tied:
        sources.pop(_HEAD, None)
    if missing := sorted(expected.keys() - sources.keys()):
        raise CheckpointError(f"{path} lacks tensor {_first(missing)}; {_ANOTHER}")
    if unknown := sorted(sources.keys() - expected.keys()):
        raise CheckpointError(f"{path} has the unexpected tensor {_first(unknown)}; {_ANOTHER}")
    for name, shape in expected.items():
        file, info = sources[name].file, sources[name].info
        if info.shape != shape:
            raise CheckpointError(f"{file.path}: {name} has shape {list(info.shape)}, not {list(shape)}; {_ANOTHER}")
        if info.dtype is None:
            raise CheckpointError(f"{file.path}: {name} is of no type that can be loaded; give floating-point weights")
    return sources


def _first(names: list[str]) -> str:
    return f"{names[0]!r:.200}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
