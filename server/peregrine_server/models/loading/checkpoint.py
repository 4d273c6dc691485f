"""Which files of a folder are the model's weights: those that transformers would load."""

import json
import re
from pathlib import Path

from peregrine_server.models.errors import AGAIN
from peregrine_server.models.loading.gguf_file import GgufFile
from peregrine_server.models.loading.gguf_layout import GgufLayout
from peregrine_server.models.loading.safetensors_file import SafetensorsFile
from peregrine_server.models.loading.tensor_file import CheckpointError, TensorFile
from peregrine_server.models.loading.torch_file import TorchFile

_NAMES = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    "model.gguf",
)
"""The first that exists counts: transformers' order (`_get_resolved_checkpoint_files`), and a GGUF file."""
_QUANTIZED = r"gptq_model-\d+bit-(?:-1|\d+)g|awq_model_w\d+_g(?:-1|\d+)"
_OTHER = re.compile(rf"({_QUANTIZED})\.safetensors(\.index\.json)?")
"""Names that AutoGPTQ and AutoAWQ gave, after their settings."""
_SHARD = re.compile(
    rf"(?P<stem>model|pytorch_model|{_QUANTIZED})-\d{{5}}-of-(?P<count>\d{{5}})(?P<suffix>\.safetensors|\.bin|\.gguf)"
)
_ADAPTER = re.compile(r"adapter_(model\.(safetensors|bin)|config\.json)")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")
"""Endings of files that may hold weights, for the message when none has a name that is looked for."""


def open_checkpoint(path: Path, gguf: GgufLayout | None = None) -> list[TensorFile]:
    """Opens every weight file of the model in directory `path` and validates its header. Raises CheckpointError.

    `gguf`: how its family is stored in GGUF files; None: these are refused.
    """
    name = next((name for name in _NAMES if (path / name).exists()), None) or _other_name(path)
    if name is None:
        return _open_all(_shards_without_index(path), gguf)
    if not name.endswith(".index.json"):
        return _open_all([path / name], gguf)
    return _open_indexed(path / name)


def close_all(files: list[TensorFile]) -> None:
    """Closes what `open_checkpoint` opened."""
    for file in files:
        file.close()


def _open_all(paths: list[Path], gguf: GgufLayout | None = None) -> list[TensorFile]:
    files: list[TensorFile] = []
    try:
        for path in paths:
            files.append(_open(path, gguf))
    except CheckpointError:
        close_all(files)
        raise
    return files


def _open(path: Path, gguf: GgufLayout | None) -> TensorFile:
    if not path.exists():
        raise CheckpointError(f"{path} is missing; download it")
    if path.suffix == ".gguf":
        if gguf is None:
            raise CheckpointError(f"{path} is a GGUF file, which is not read for models of this kind; give safetensors")
        return GgufFile(path, gguf)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def _open_indexed(index: Path) -> list[TensorFile]:
    weight_map = _read_weight_map(index)
    files = _open_all([index.parent / shard for shard in sorted(set(weight_map.values()))])
    for file in files:
        named = (name for name, shard in weight_map.items() if shard == file.path.name)
        missing = min((name for name in named if name not in file.tensors), default=None)
        if missing is not None:
            close_all(files)
            raise CheckpointError(f"{file.path} lacks {missing!r:.200}, which {index.name} places there; {AGAIN}")
    return files


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
    except OSError as error:
        raise CheckpointError(f"{index} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{index} is not a weight index; {AGAIN}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; {AGAIN}")
    for file in weight_map.values():
        # A file of another directory is never a part of this model.
        if not isinstance(file, str) or file != Path(file).name or file in ("", ".", ".."):
            raise CheckpointError(f"{index} names the file {file!r:.80}, which is not a plain file name")
    return weight_map


def _other_name(path: Path) -> str | None:
    """The name of the weights, or of their index, that a quantizing tool wrote. Raises CheckpointError for several."""
    names = sorted(file.name for file in path.iterdir() if _OTHER.fullmatch(file.name))
    if len(names) > 1:
        raise CheckpointError(f"{path} holds several checkpoints ({', '.join(names)[:200]}); leave one there")
    return names[0] if names else None


def _shards_without_index(path: Path) -> list[Path]:
    """All the shards of a set whose index is absent, by their own numbers. Raises CheckpointError.

    transformers refuses such a folder.
    """
    found = [match for file in sorted(path.iterdir()) if (match := _SHARD.fullmatch(file.name))]
    sets = {match.group("stem", "count", "suffix") for match in found}
    # As between whole files, safetensors are preferred.
    sets = {each for each in sets if each[2] == ".safetensors"} or sets
    if not sets:
        raise CheckpointError(_no_weights(path))
    if len(sets) > 1:
        names = ", ".join(f"{stem}-*-of-{count}{suffix}" for stem, count, suffix in sorted(sets))
        raise CheckpointError(f"{path} holds the shards of several checkpoints ({names}); leave one there")
    stem, count, suffix = sets.pop()
    return [path / f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1)]


def _no_weights(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir())
    if any(map(_ADAPTER.fullmatch, names)):
        return f"{path} holds an adapter without its model; merge the two (peft's merge_and_unload) and save the result"
    others = [name for name in names if name.endswith(_WEIGHTS)]
    found = f" (found {', '.join(others)[:200]})" if others else ""
    return f"{path} holds no weights{found}: expected one of {', '.join(_NAMES)}; download or rename them"
