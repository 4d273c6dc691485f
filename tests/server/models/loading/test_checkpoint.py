"""Damaged, hostile and foreign checkpoints: one line that says which file and what to do, before anything is loaded."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import write_tensors
from falcons import failure, load, model_context
from peregrine_server.models.loading.checkpoint import close_all, open_checkpoint
from peregrine_server.models.loading.tensor_file import CheckpointError

CPU = torch.device("cpu")
QKV = "transformer.h.0.self_attention.query_key_value.weight"


def shard(path: Path, number: int = 1) -> Path:
    return path / f"model-{number:05}-of-00002.safetensors"


def test_missing_shard(path: Path) -> None:
    """A shard that the index names and nobody downloaded is named."""
    shard(path, 2).unlink()
    assert failure(path) == f"{shard(path, 2)} is missing; download it"


def test_no_weights(path: Path) -> None:
    """A directory with a config alone says which files it should hold."""
    for file in path.glob("model*"):
        file.unlink()
    assert "expected one of model.safetensors" in failure(path)


@pytest.mark.parametrize("left", [0, 7, 8, 100, -1])
def test_truncated_shard(path: Path, left: int) -> None:
    """A shard cut short anywhere is found by its header, whose offsets must end where the file does."""
    data = shard(path).read_bytes()
    shard(path).write_bytes(data[:left])
    assert failure(path).startswith(f"{shard(path)} is truncated")
    assert failure(path).endswith("; download it again")


def test_shard_with_a_tail(path: Path) -> None:
    """Bytes after the last tensor are an error, too."""
    shard(path).write_bytes(shard(path).read_bytes() + b"\0")
    assert "is too long" in failure(path)


def test_directory_in_place_of_a_shard(path: Path) -> None:
    """A shard that cannot be read says so."""
    shard(path).unlink()
    shard(path).mkdir()
    assert failure(path).startswith(f"{shard(path)} cannot be read")


def rewrite_header(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**40, 2**20]},
        {"shape": [-1, 56]},
        {"shape": [1.5, 56]},
        {"shape": "no"},
        {"shape": None},
        {"dtype": ["F32"]},
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": [0]},
        {"data_offsets": None},
    ],
)
def test_lying_header(path: Path, change: dict[str, Any]) -> None:
    """A header whose shapes, types or offsets do not describe the file is refused before anything is allocated."""

    def lie(header: dict[str, Any]) -> None:
        header[next(name for name in header if name != "__metadata__")].update(change)

    rewrite_header(shard(path), lie)
    assert failure(path).startswith(str(shard(path)))


def test_overlapping_tensors(path: Path) -> None:
    """Two tensors that claim the same bytes are refused."""

    def overlap(header: dict[str, Any]) -> None:
        norms = [name for name in header if "input_layernorm" in name or "ln_f" in name]
        header[norms[0]]["data_offsets"] = header[norms[1]]["data_offsets"]

    rewrite_header(shard(path), overlap)
    assert "does not follow the one before it" in failure(path)


@pytest.mark.parametrize("content", [b"[]", b"[" * 100_000, b"{", b'{"a": 1}', b'{"a": {}}', b"\xff", b"1" * 10_000])
def test_header_that_is_no_header(path: Path, content: bytes) -> None:
    """A header of anything but tensors is damaged."""
    shard(path).write_bytes(struct.pack("<Q", len(content)) + content)
    assert failure(path) == f"{shard(path)} has a damaged header; download it again"


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (b"{", "is not a weight index"),
        (b"{}", "is not a weight index"),
        (b'{"weight_map": {}}', "has no weight_map"),
        (b'{"weight_map": {"a": "../config.json"}}', "not a plain file name"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "not a plain file name"),
        (b'{"weight_map": {"a": ".."}}', "not a plain file name"),
        (b'{"weight_map": {"a": 1}}', "not a plain file name"),
    ],
)
def test_bad_index(path: Path, index: bytes, words: str) -> None:
    """An index that is malformed or points outside the model's directory is refused."""
    (path / "model.safetensors.index.json").write_bytes(index)
    assert words in failure(path)


def test_index_and_shard_disagree(path: Path) -> None:
    """A tensor that the index places in a shard must be there."""
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["transformer.extra"] = shard(path).name
    file.write_text(json.dumps(index))
    assert "lacks 'transformer.extra', which model.safetensors.index.json places there" in failure(path)


def test_tensor_in_two_shards(path: Path, tensors: dict[str, Tensor]) -> None:
    """The same tensor in two files, under either name, is an error that names both."""
    for number in (1, 2):
        shard(path, number).unlink()
    write_tensors(path, {**tensors, "ln_f.weight": tensors["transformer.ln_f.weight"].clone()}, num_shards=2)
    assert "ln_f.weight' is in" in failure(path)


def single(path: Path, tensors: dict[str, Tensor], file_format: str = "safetensors") -> Path:
    """The checkpoint at `path` with these tensors instead, in one file."""
    for file in path.glob("model*"):
        file.unlink()
    write_tensors(path, tensors, file_format)
    return path


def test_missing_tensor(path: Path, tensors: dict[str, Tensor]) -> None:
    """A tensor that the config asks for and no file has is named."""
    del tensors[QKV]
    assert "lacks tensor 'h.0.self_attention.query_key_value.weight'" in failure(single(path, tensors))


def test_leftover_tensors(path: Path, tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture) -> None:
    """Tensors that nothing reads are left out with a warning, as in transformers; it names a few of them."""
    single(path, tensors)
    load(path, model_context(torch.float32))
    assert not caplog.messages
    extra = ["score.weight", "transformer.h.0.rope.inv_freq", "transformer.h.2.ln_attn.bias", "x.y", "x.z"]
    single(path, tensors | {name: torch.ones(1, dtype=torch.int8) for name in extra})
    load(path, model_context(torch.float32))
    named = "'h.0.rope.inv_freq', 'h.2.ln_attn.bias', 'score.weight' and 2 more"
    assert caplog.messages == [f"{path}: unexpected tensors are left out: {named}"]


def test_a_missing_tensor_beside_leftover_ones(path: Path, tensors: dict[str, Tensor]) -> None:
    """A tensor under another name is missing all the same."""
    tensors["transformer.h.0.attention.qkv.weight"] = tensors.pop(QKV)
    assert "lacks tensor 'h.0.self_attention.query_key_value.weight'" in failure(single(path, tensors))


def test_wrong_shape(path: Path, tensors: dict[str, Tensor]) -> None:
    """A tensor of another shape than the config's is named with both."""
    tensors[QKV] = tensors[QKV][:-1].clone()
    assert "query_key_value.weight has shape [71, 56], not [72, 56]" in failure(single(path, tensors))


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_wrong_type(path: Path, tensors: dict[str, Tensor], file_format: str) -> None:
    """Integer weights are of a quantized model, and named."""
    tensors[QKV] = tensors[QKV].to(torch.int8)
    assert "is of no type that can be loaded" in failure(single(path, tensors, file_format))


def test_untied_head_must_be_there(path: Path, tensors: dict[str, Tensor]) -> None:
    """Only a tied model may leave its head out."""
    del tensors["lm_head.weight"]
    expected = "lacks tensor 'lm_head.weight'; if the model has no head of its own, set tie_word_embeddings to true"
    assert expected in failure(single(path, tensors))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


@pytest.mark.parametrize("kind", ["pickle", "garbage", "truncated", "not a dict", "not tensors"])
def test_bad_legacy_files(
    kind: str, path: Path, tensors: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    """A legacy file of code, garbage, half a checkpoint or other objects is refused, and nothing is executed."""
    single(path, tensors, "bin")
    file = path / "pytorch_model.bin"
    if kind == "pickle":
        torch.save({"a": Hostile()}, file)
    elif kind == "garbage":
        file.write_bytes(pickle.dumps(Hostile()))
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:-5000])
    else:
        torch.save([1] if kind == "not a dict" else {"a": 1}, file)
    assert failure(path).startswith(str(file))
    assert "convert it to safetensors" in failure(path)
    assert capsys.readouterr().out == ""


def test_a_file_that_shrinks_while_it_is_read(path: Path) -> None:
    """A shard replaced during the load is an error, not a crash."""
    files = open_checkpoint(path)
    name = next(name for name, info in files[0].tensors.items() if len(info.shape) == 2)
    shard(path).write_bytes(b"")
    with pytest.raises(CheckpointError, match="ended early"):
        files[0].copy(name, 0, 0, torch.empty(1, 1))
    close_all(files)
