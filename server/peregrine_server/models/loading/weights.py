"""From a checkpoint's tensors to one rank's: every name accounted for, then streamed into place piece by piece."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import Pattern
from typing import Protocol

import torch
from torch import Tensor

from peregrine_server.models.loading.checkpoint import close_all, open_checkpoint
from peregrine_server.models.loading.gguf_layout import GgufLayout
from peregrine_server.models.loading.read_ahead import Item, Part, ReadAhead
from peregrine_server.models.loading.slices import Slice, whole
from peregrine_server.models.loading.tensor_file import DTYPES, CheckpointError, TensorFile, TensorInfo
from peregrine_server.models.loading.tensor_spec import FLOATS, TensorSpec

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all) of this rank's share of the checkpoint, by one thread at a time."""

PIECE_BYTES = 4 * 2**20
"""Bytes, in the serving dtype, that are read at a time, and staged on the host where they are not read into place."""

_ANOTHER = "config.json may be of another model"
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "model.")
"""Prefixes that wrappers put before every name: DistributedDataParallel, torch.compile, peft, Lightning."""


@dataclass(frozen=True, slots=True)
class _Source:
    file: TensorFile
    name: str
    """In the file."""
    info: TensorInfo

    def read(self) -> Tensor:
        """All of a small tensor, as it is stored, on the host."""
        assert self.info.dtype is not None
        shape = self.info.shape
        out = torch.empty(shape, dtype=self.info.dtype)
        self.file.copy(self.name, 0, 0, out.view(shape[0] if shape else 1, -1))
        self.file.release(self.name)
        return out

    def piece(self, row: int, num_rows: int, dtype: torch.dtype) -> Tensor:
        """Whole rows of a matrix, on the host."""
        out = torch.empty((num_rows, self.info.shape[1]), dtype=dtype)
        self.file.copy(self.name, row, 0, out)
        return out


class TensorSource(Protocol):
    """One rank's tensors, by name and slice, on its device, in the serving dtype or another that is named."""

    def rows(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        """Row slices of matrices of equal width, one below the other: [sum of the slices' sizes, width]."""

    def columns(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        """Column slices of matrices of equal height, side by side: [height, sum of the slices' sizes]."""

    def vector(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        """Slices of vectors, one after the other: [sum of the slices' sizes]."""

    @property
    def dtype(self) -> torch.dtype:
        """The serving dtype."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in the checkpoint."""

    def load_each(self, load: Callable[[Item], Part], items: Sequence[Item]) -> Iterable[Part]:
        """`load` of each item, in order, which reads tensors of this source; maybe of several at once, on threads."""


class Weights:
    """A checkpoint as a source of one rank's tensors. A context manager; `check` comes before the first read."""

    def __init__(
        self,
        path: Path,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress | None = None,
        *,
        prefix: str = "",
        gguf: GgufLayout | None = None,
    ) -> None:
        """Opens the checkpoint in directory `path`. Its tensors are named without `prefix`, of a GGUF file as its
        family's layout `gguf` says. Raises CheckpointError."""
        self._path, self._device, self._dtype, self._progress = path, device, dtype, progress
        self._files = open_checkpoint(path, gguf)
        try:
            self._sources = _by_name(self._files, prefix)
        except CheckpointError:
            close_all(self._files)
            raise
        self._loaded_bytes = self._total_bytes = 0
        self._reported = threading.Lock()
        self._ahead = ReadAhead(device)

    @property
    def names(self) -> set[str]:
        """The tensors in the checkpoint."""
        return set(self._sources)

    def are_equal(self, first: str, second: str) -> bool:
        """Whether two tensors are matrices of the same values in the serving dtype; they are read a piece at a time."""
        sources = [self._sources[name] for name in (first, second)]
        shape = sources[0].info.shape
        if len(shape) != 2 or any(source.info.shape != shape or not _is_float(source.info) for source in sources):
            return False
        height, width = shape
        step = max(1, PIECE_BYTES // (width * self._dtype.itemsize))
        return all(
            torch.equal(*(source.piece(row, min(step, height - row), self._dtype) for source in sources))
            for row in range(0, height, step)
        )

    def check(
        self,
        expected: Mapping[str, TensorSpec],
        *,
        share: float = 1.0,
        ignored: Pattern[str] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Accounts for every tensor: `expected` by name, `ignored` matches names that may be left over.
        Returns the names of others that are: they are not read, as in transformers.

        `aliases`: name -> another name under which a checkpoint may hold the same tensor, alone or as well.
        `share`: the part of their bytes that this rank will read, for the progress. Raises CheckpointError.
        """
        sources = {name: source for name, source in self._sources.items() if not (ignored and ignored.search(name))}
        for name, alias in (aliases or {}).items():
            if (source := sources.pop(alias, None)) is not None:
                sources.setdefault(name, source)
        _check(self._path, sources, expected)
        _check_values(sources, expected)
        self._sources = sources
        self._total_bytes = round(share * sum(sources[name].info.num_bytes for name in expected))
        return sorted(sources.keys() - expected.keys())

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: object) -> None:
        close_all(self._files)

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def shape(self, name: str) -> tuple[int, ...]:
        return self._sources[name].info.shape

    def load_each(self, load: Callable[[Item], Part], items: Sequence[Item]) -> list[Part]:
        return self._ahead.load(load, items)

    def rows(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        width = self._sources[parts[0][0]].info.shape[1]
        out, start = self._empty(sum(rows.size for _, rows in parts), width, dtype), 0
        for name, rows in parts:
            self._fill(out.narrow(0, start, rows.size), name, rows, whole(width))
            start += rows.size
        return out

    def columns(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        height = self._sources[parts[0][0]].info.shape[0]
        out, start = self._empty(height, sum(columns.size for _, columns in parts), dtype), 0
        for name, columns in parts:
            self._fill(out.narrow(1, start, columns.size), name, whole(height), columns)
            start += columns.size
        return out

    def vector(self, *parts: tuple[str, Slice], dtype: torch.dtype | None = None) -> Tensor:
        out, start = self._empty(sum(rows.size for _, rows in parts), 1, dtype), 0
        for name, rows in parts:
            self._fill(out.narrow(0, start, rows.size), name, rows, whole(1))
            start += rows.size
        return out.view(-1)

    def _empty(self, num_rows: int, num_columns: int, dtype: torch.dtype | None) -> Tensor:
        dtype = dtype or self._dtype
        self._ahead.hold(num_rows * num_columns * dtype.itemsize)
        return torch.empty((num_rows, num_columns), dtype=dtype, device=self._device)

    def _fill(self, out: Tensor, name: str, rows: Slice, columns: Slice) -> None:
        """out [rows.size, columns.size] becomes that slice of the tensor, a piece of whole rows at a time."""
        source = self._sources[name]
        if rows.is_padded or columns.is_padded:
            out.zero_()
        for across in columns.runs:
            step = max(1, PIECE_BYTES // (across.length * out.element_size()))
            for down in rows.runs:
                if [across.length] == [*source.info.shape[1:]]:
                    source.file.expect(source.name, down.source, down.length)
                for start in range(0, down.length, step):
                    count = min(step, down.length - start)
                    piece = out.narrow(0, down.target + start, count).narrow(1, across.target, across.length)
                    source.file.copy(source.name, down.source + start, across.source, piece)
                    self._report(source, piece.numel())
        source.file.release(source.name)
        self._report(source, out.numel() - rows.num_real * columns.num_real)

    def _report(self, source: _Source, count: int) -> None:
        assert source.info.dtype is not None
        with self._reported:
            self._loaded_bytes += count * source.info.dtype.itemsize
            if self._progress and count:
                # A quantized tensor's total is an estimate: groups that slices cut are read twice.
                self._progress(min(self._loaded_bytes, self._total_bytes), self._total_bytes)


def _by_name(files: list[TensorFile], prefix: str) -> dict[str, _Source]:
    """Every tensor of every file under its canonical name."""
    sources: dict[str, _Source] = {}
    wrapper = _wrapper([name for file in files for name in file.tensors])
    for file in files:
        for name, info in file.tensors.items():
            canonical = name.removeprefix(wrapper).removeprefix(prefix)
            if canonical in sources:
                raise CheckpointError(f"tensor {name!r:.200} is in {sources[canonical].file.path} and in {file.path}")
            sources[canonical] = _Source(file, name, info)
    return sources


def _wrapper(names: list[str]) -> str:
    """The prefix that wrappers put before all names, one around the other."""
    found = ""
    while names and (added := next((each for each in _WRAPPERS if all(n.startswith(found + each) for n in names)), "")):
        found += added
    return found


def _check(path: Path, sources: Mapping[str, _Source], expected: Mapping[str, TensorSpec]) -> None:
    """Raises CheckpointError unless there is a source of the right shape and type for each name."""
    if missing := sorted(expected.keys() - sources.keys()):
        raise CheckpointError(f"{path} lacks tensor {_first(missing)}; {_remedy(missing[0], sources, expected)}")
    for name, (shape, dtypes, _) in expected.items():
        file, info = sources[name].file, sources[name].info
        if not _fits(info.shape, shape):
            raise CheckpointError(f"{file.path}: {name} has shape {list(info.shape)}, not {list(shape)}; {_ANOTHER}")
        if info.dtype in [DTYPES[each] for each in dtypes]:
            continue
        if dtypes == FLOATS:
            raise CheckpointError(f"{file.path}: {name} is of no type that can be loaded; give floating-point weights")
        raise CheckpointError(f"{file.path}: {name} is not of type {' or '.join(dtypes)}; {_ANOTHER}")


def _remedy(missing: str, sources: Mapping[str, _Source], expected: Mapping[str, TensorSpec]) -> str:
    """The remedy for a missing tensor, whose linear may have a weight that is not quantized."""
    weight = re.sub(r"\.(weight\b.*|[^.]*)$", ".weight", missing)
    is_plain = weight in sources and _is_float(sources[weight].info)
    if is_plain and (weight not in expected or expected[weight].dtypes != FLOATS):
        return f"{weight} is not quantized: if none is, leave quantization_config out of config.json"
    return _ANOTHER


def _check_values(sources: Mapping[str, _Source], expected: Mapping[str, TensorSpec]) -> None:
    """Raises CheckpointError for small tensors whose values are wrong."""
    for name, spec in expected.items():
        if spec.fault is not None and (fault := spec.fault(sources[name].read())) is not None:
            raise CheckpointError(f"{name} {fault}")


def _fits(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(found) == len(shape) and all(size in (-1, each) for each, size in zip(found, shape, strict=True))


def _is_float(info: TensorInfo) -> bool:
    """Whether the values are the weights themselves: an 8-bit type has a scale beside it."""
    return info.dtype in [DTYPES[each] for each in FLOATS]


def _first(names: list[str]) -> str:
    return f"{names[0]!r:.200}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
