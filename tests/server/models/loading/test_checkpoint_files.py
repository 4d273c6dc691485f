"""Which files of a folder are the model: what transformers takes, or one line that says what is there."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from checkpoints import build_model, write_checkpoint, write_tensors
from falcons import failure, load, model_context, open_weights
from peregrine_server.models.loading.checkpoint import close_all, open_checkpoint
from peregrine_server.models.loading.slices import whole


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_a_whole_file_beside_a_stale_index_is_the_model(file_format: str, tmp_path: Path) -> None:
    """A model saved in one file over a sharded one counts, whatever the index beside it says; as in transformers."""
    old, new = build_model("7b-odd", seed=1), build_model("7b-odd", seed=2)
    write_checkpoint(tmp_path, old, "new", file_format, num_shards=2)
    write_checkpoint(tmp_path, new, "new", file_format)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path).lm_head.weight
    assert torch.equal(expected, new.lm_head.weight)
    with open_weights(tmp_path, torch.float32)[0] as weights:
        assert torch.equal(weights.rows(("lm_head.weight", whole(300))), expected)


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_shards_without_an_index(file_format: str, tmp_path: Path) -> None:
    """Shards whose index was not copied along are put together by their own numbers; a missing one is named."""
    write_checkpoint(tmp_path, build_model("7b-odd"), "new", file_format, num_shards=3)
    next(tmp_path.glob("*.index.json")).unlink()
    load(tmp_path, model_context(torch.float32))
    last = next(tmp_path.glob("*-00003-of-00003.*"))
    last.unlink()
    assert failure(tmp_path) == f"{last} is missing; download it"


def test_shards_of_two_checkpoints_without_an_index(path: Path, tensors: dict[str, Tensor]) -> None:
    """Without an index, shards of a newer checkpoint among those of an older one are not told apart."""
    write_tensors(path, tensors, num_shards=3)
    (path / "model.safetensors.index.json").unlink()
    expected = "several checkpoints (model-*-of-00002.safetensors, model-*-of-00003.safetensors); leave one there"
    assert failure(path).endswith(expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adapter_model.safetensors", "holds an adapter without its model; merge the two"),
        ("consolidated.00.pth", "holds no weights (found consolidated.00.pth): expected one of model.safetensors"),
        ("model.fp16.safetensors", "holds no weights (found model.fp16.safetensors): expected one of"),
    ],
)
def test_weights_of_another_name(path: Path, name: str, words: str) -> None:
    """A folder of files that transformers would not look for is told what is there and what should be."""
    for file in path.glob("model*"):
        file.unlink()
    (path / name).write_bytes(b"")
    assert words in failure(path)


def test_safetensors_are_preferred(path: Path, tensors: dict[str, Tensor]) -> None:
    """Where both formats are present the one without pickles is read."""
    (path / "pytorch_model.bin").write_bytes(b"garbage")
    files = open_checkpoint(path)
    assert {file.path.suffix for file in files} == {".safetensors"}
    close_all(files)


def test_names_of_quantizing_tools(path: Path, tensors: dict[str, Tensor]) -> None:
    """A file, or shards with and without their index, named after the tool's settings; of several one is to be left."""
    name = "gptq_model-4bit-128g"
    for file in path.glob("model*.safetensors"):
        file.rename(path / file.name.replace("model", name, 1))
    index = path / "model.safetensors.index.json"
    renamed = index.rename(path / f"{name}.safetensors.index.json")
    renamed.write_text(renamed.read_text().replace('"model-', f'"{name}-'))
    load(path, model_context(torch.float32))
    renamed.unlink()
    load(path, model_context(torch.float32))
    for file in path.glob("*.safetensors"):
        file.unlink()
    write_tensors(path, tensors)
    (path / "model.safetensors").rename(path / f"{name}.safetensors")
    load(path, model_context(torch.float32))
    (path / "awq_model_w4_g128.safetensors").write_bytes(b"")
    expected = "several checkpoints (awq_model_w4_g128.safetensors, gptq_model-4bit-128g.safetensors); leave one there"
    assert failure(path).endswith(expected)
