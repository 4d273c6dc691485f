"""From a checkpoint's tensors to one rank's: every name accounted for, then streamed into place piece by piece."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from peregrine_server.model.checkpoint import CheckpointError, TensorFile, TensorInfo, close_all, open_checkpoint
from peregrine_server.model.config import FalconConfig
from peregrine_server.model.partition import Slice, whole

PIECE_BYTES = 4 * 2**20
"""Of the serving dtype: what is staged on the host at a time."""

_EMBEDDING = "word_embeddings.weight"
_HEAD = "lm_head.weight"
_HARMLESS = re.compile(r"\.(rotary|rotary_emb|maybe_rotary)\.inv_freq$|\.(self_attention|attention|attn)\.(masked_)?bias$")
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
        device: torch.device,
        dtype: torch.dtype,
        report: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        """Opens the checkpoint in directory `path` and accounts for every tensor. Raises CheckpointError.

        `config` is then the given one with the LayerNorms that the checkpoint has. `report` is called with the bytes
        of the serving dtype that each piece added.
        """
        self._device, self._dtype, self._report = device, dtype, report
        self._files = open_checkpoint(path)
        try:
            sources = _by_name(self._files)
            self.config = _confirm_layer_norms(config, sources)
            self._sources = _check(path, sources, expected_tensors(self.config), self.config.is_tied)
        except CheckpointError:
            close_all(self._files)
            raise

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: object) -> None:
        close_all(self._files)

    def rows(self, *parts: tuple[str, Slice]) -> Tensor:
        """Row slices of matrices of equal width, one below the other: [sum of the slices' sizes, width]."""
        width = self._sources[parts[0][0]].info.shape[1]
        out = self._empty(sum(rows.size for _, rows in parts), width)
        for (name, rows), region in zip(parts, out.split([rows.size for _, rows in parts]), strict=True):
            self._fill(region, name, rows, whole(width))
        return out

    def columns(self, *parts: tuple[str, Slice]) -> Tensor:
        """Column slices of matrices of equal height, side by side: [height, sum of the slices' sizes]."""
        height = self._sources[parts[0][0]].info.shape[0]
        out = self._empty(height, sum(columns.size for _, columns in parts))
        regions = out.split([columns.size for _, columns in parts], dim=1)
        for (name, columns), region in zip(parts, regions, strict=True):
            self._fill(region, name, whole(height), columns)
        return out

    def vector(self, *parts: tuple[str, Slice]) -> Tensor:
        """Slices of vectors, one after the other: [sum of the slices' sizes]."""
        out = self._empty(sum(rows.size for _, rows in parts), 1)
        for (name, rows), region in zip(parts, out.split([rows.size for _, rows in parts]), strict=True):
            self._fill(region, name, rows, whole(1))
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
                    self._report(piece.numel() * self._dtype.itemsize)
        self._report((out.numel() - rows.num_real * columns.num_real) * self._dtype.itemsize)


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
        raise CheckpointError(f"{path} lacks tensor {_first(missing)}; config.json may be of another model")
    if unknown := sorted(sources.keys() - expected.keys()):
        raise CheckpointError(f"{path} has the unexpected tensor {_first(unknown)}; config.json may be of another model")
    for name, shape in expected.items():
        source = sources[name]
        if source.info.shape != shape:
            found = f"{list(source.info.shape)} instead of {list(shape)}"
            raise CheckpointError(f"{source.file.path}: tensor {name} has shape {found}; config.json may be of another model")
        if source.info.dtype is None:
            raise CheckpointError(f"{source.file.path}: tensor {name} is not of a floating-point type that can be loaded")
    return sources


def _first(names: list[str]) -> str:
    return f"{names[0]!r:.200}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
