"""Models by name and by folder."""

from pathlib import Path

import pytest

from checkpoints import build_model, write_checkpoint
from peregrine_router.planning.models import find_model
from peregrine_server.models.formats.interface import ALL_KERNELS, CPU_KERNELS
from peregrine_server.models.registry import load_config, published_models
from quantized_checkpoints import LAYOUTS, write_quantized


@pytest.mark.parametrize("name", ["falcon-40b-instruct", "FALCON-40B-Instruct", "tiiuae/falcon-40b-instruct"])
def test_a_published_model_is_known_by_its_name(name: str) -> None:
    """With or without its owner, in any case; the command has the hub's name."""
    model = find_model(name)
    assert model.name == "tiiuae/falcon-40b-instruct"
    assert model.config.summary() == "60 layers, 128 heads, 8 KV heads, vocabulary 65,024"


def test_falcon_2_is_the_11b() -> None:
    """The series' name is no model's at the hub."""
    assert find_model("falcon2").name == "tiiuae/falcon-11B"


def test_every_published_falcon_is_known() -> None:
    """Nine names of the hub."""
    assert {find_model(name).name for name in published_models()} == set(published_models())
    assert len(published_models()) == 9


def test_a_folder_is_read(tmp_path: Path) -> None:
    """Its config.json is enough."""
    write_checkpoint(tmp_path, build_model("40b"))
    (tmp_path / "model.safetensors").unlink()
    assert find_model(str(tmp_path)).config == load_config(tmp_path)


def test_a_quantized_folder_has_its_format(tmp_path: Path) -> None:
    """It is checked against --quantize; floating-point weights have none."""
    write_quantized(tmp_path, "40b", LAYOUTS["int4"])
    stored = find_model(str(tmp_path)).stored
    assert stored is not None
    assert stored("int4", CPU_KERNELS).name == stored(None, ALL_KERNELS).name == "compressed-tensors pack-quantized"
    with pytest.raises(
        ValueError, match=r"^--quantize int8: the checkpoint's weights are compressed-tensors .*: leave"
    ):
        stored("int8", ALL_KERNELS)
    assert find_model("falcon-7b").stored is None


@pytest.mark.parametrize("name", ["falcon.gguf", "owner/name/falcon.gguf"])
def test_a_gguf_file_that_is_not_here_is_told(name: str) -> None:
    """One line; it is not looked for at the hub."""
    with pytest.raises(ValueError, match=f"^there is no file {name}, and a plan downloads none: give the path of one"):
        find_model(name)


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    """One line; nothing is looked up at the hub."""
    with pytest.raises(ValueError, match=r"^llama is neither a folder nor .* one of falcon-rw-1b, .*falcon-180B-chat$"):
        find_model("llama")
