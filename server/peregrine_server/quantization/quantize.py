"""A checkpoint read tensor by tensor and written anew with quantized linears, in the folders and format that are the
arguments of `python -m peregrine_server.quantization.quantize`.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from peregrine_server.models.formats.checkpoints.compressed_tensors import CompressedTensorsFormat
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.quantized import GROUP_SIZES
from peregrine_server.models.interface import SourceCheckpoint
from peregrine_server.models.loading.slices import whole
from peregrine_server.models.loading.tensor_spec import FLOATS, TensorSpec
from peregrine_server.models.registry import load_config, load_format, open_checkpoint
from peregrine_server.quantization.layouts import SCALES, quantization_config, tensors_of
from peregrine_server.quantization.safetensors_writer import SafetensorsWriter, num_bytes, split, write_index

MAX_FILE_BYTES = 4 * 10**9
"""Size of a file of weights."""
RECORD = "peregrine_quantize.json"
"""File that says how the weights were made: config.json's `quantization_config` takes no keys of others."""
WEIGHTS = ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".index.json"
"""Endings of files that are not copied."""
DTYPE_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""safetensors' names of the types that a model computes in."""


def main(arguments: list[str]) -> int:
    """Writes a model; the exit code. An error is one line on stderr."""
    source, output, name = arguments
    try:
        write_quantized(Path(source), Path(output), name)
    except (ValueError, OSError) as error:
        print(f"peregrine quantize: {error}", file=sys.stderr)
        return 1
    return 0


def write_quantized(source: Path, output: Path, name: str) -> None:
    """Writes the model in folder `source` with linears in format `name` to `output`, which appears once it is complete.

    Needs memory for the largest tensor and what becomes of it. Raises ValueError or OSError, one line each.
    """
    if output.exists():
        raise ValueError(f"{output} exists: give --output a new folder")
    if (found := load_format(source, None).name) != DenseFormat.name:
        raise ValueError(f"the weights in {source} are {found} already: give the original ones")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Where it can be renamed to, and removed if this ends early.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as parent:
        folder = Path(parent) / output.name
        folder.mkdir()
        with open_checkpoint(source, load_config(source)) as checkpoint:
            conversion = Conversion.of(checkpoint, name)
            copy_files(source, folder)
            write_config(source, folder, conversion)
            conversion.write(folder)
        folder.rename(output)


def copy_files(source: Path, folder: Path) -> None:
    """Copies tokenizer, chat template, generation config and what else is beside the weights."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.endswith(WEIGHTS):
            shutil.copyfile(file, folder / file.name)


def write_config(source: Path, folder: Path, conversion: "Conversion") -> None:
    """Writes config.json with the quantization, and what made it."""
    hf = json.loads((source / "config.json").read_text(encoding="utf-8"))
    hf["quantization_config"] = quantization_config(conversion.name, conversion.group_size)
    (folder / "config.json").write_text(json.dumps(hf, indent=2) + "\n", encoding="utf-8")
    record = {"format": conversion.name, "made_by": f"peregrine {version('peregrine')}", "source": source.name}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Conversion:
    """A checkpoint's tensors in another format."""

    checkpoint: SourceCheckpoint
    name: str
    """The format, of `layouts.LAYOUTS`."""
    group_size: int
    sources: Mapping[str, TensorSpec]
    targets: Mapping[str, TensorSpec]
    """Each with its one type."""

    @staticmethod
    def of(checkpoint: SourceCheckpoint, name: str) -> "Conversion":
        """Raises ValueError if no size of groups divides all linears."""
        sources = checkpoint.tensors(DenseFormat())
        widths = {spec.shape[1] for spec in sources.values() if len(spec.shape) == 2}
        size = next((size for size in GROUP_SIZES if not any(width % size for width in widths)), None)
        if size is None:
            raise ValueError(
                f"groups of {GROUP_SIZES[-1]} do not divide linears of {sorted(widths)} inputs: load it dense"
            )
        targets = checkpoint.tensors(CompressedTensorsFormat(quantization_config(name, size)))
        types = {"weight_scale": SCALES[name]}
        dense = DTYPE_NAMES[checkpoint.dtype]
        typed = {
            each: TensorSpec(
                spec.shape, (types.get(each.rpartition(".")[2], dense),) if spec.dtypes == FLOATS else spec.dtypes
            )
            for each, spec in targets.items()
        }
        return Conversion(checkpoint, name, size, sources, typed)

    def write(self, folder: Path) -> None:
        """Writes the files of weights and their index, with a progress bar on stderr."""
        parts = split(self.targets, MAX_FILE_BYTES)
        tensors = self.tensors()
        files = {}
        total = sum(map(num_bytes, self.targets.values()))
        with tqdm(total=total, unit="B", unit_scale=True, desc=f"writing {self.name}") as progress:
            for number, part in enumerate(parts, start=1):
                file = f"model-{number:05}-of-{len(parts):05}.safetensors"
                files[file] = {self.checkpoint.file_name(name): spec for name, spec in part.items()}
                with SafetensorsWriter(folder / file, files[file]) as writer:
                    for _ in part:
                        name, values = next(tensors)
                        writer.write(self.checkpoint.file_name(name), values)
                        progress.update(values.nbytes)
        write_index(folder, files)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The target's tensors in its order; one linear is in memory at a time."""
        made: dict[str, Tensor] = {}
        for name, spec in self.targets.items():
            if name not in made:
                made = self.read(name, spec)
            yield name, made.pop(name)

    def read(self, name: str, spec: TensorSpec) -> dict[str, Tensor]:
        """A tensor that stays as it is, or all those of its linear."""
        weights, source = self.checkpoint.weights, self.sources.get(name)
        if source is not None and spec.dtypes == (DTYPE_NAMES[self.checkpoint.dtype],):
            part = (name, whole(spec.shape[0]))
            return {name: weights.rows(part) if len(spec.shape) == 2 else weights.vector(part)}
        linear = name.rpartition(".")[0]
        (rows, _) = self.sources[f"{linear}.weight"].shape
        weight = weights.rows((f"{linear}.weight", whole(rows)))
        return {f"{linear}.{kind}": each for kind, each in tensors_of(self.name, weight, self.group_size).items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
