"""Models by name and by folder."""

from pathlib import Path

import pytest

from checkpoints import build_model, write_checkpoint
from peregrine_router.planning.models import find_model
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


def test_a_quantized_folder_is_refused(tmp_path: Path) -> None:
    """One line: sizes of what is stored are not those of the formats that are planned."""
    write_quantized(tmp_path, "40b", LAYOUTS["int4"])
    with pytest.raises(ValueError, match=r"weights are compressed-tensors pack-quantized already, and not planned: "):
        find_model(str(tmp_path))


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    """One line; nothing is looked up at the hub."""
    with pytest.raises(ValueError, match=r"^llama is neither a folder nor .* one of falcon-rw-1b, .*falcon-180B-chat$"):
        find_model("llama")
