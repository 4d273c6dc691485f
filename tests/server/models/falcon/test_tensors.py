"""The tensors that a Falcon's checkpoint must and may hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import build_model, write_checkpoint, write_tensors
from falcons import falcon_config, open_weights
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.tensors import expected_tensors
from peregrine_server.models.formats.dense import DenseFormat


def state(variant: str) -> dict[str, Tensor]:
    return dict(build_model(variant).state_dict())


@pytest.mark.parametrize("variant", ["rw-1b", "7b", "40b", "11b", "7b-odd"])
def test_expected_names_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    """The tensors that a config implies are exactly those that transformers' model has, shapes included."""
    model = build_model(variant)
    config = falcon_config(write_checkpoint(tmp_path, model))
    names = {name.removeprefix("transformer."): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.is_tied:
        del names["lm_head.weight"]
    assert expected_tensors(config, DenseFormat()) == names


def opened(path: Path, tensors: dict[str, Tensor], variant: str) -> FalconConfig:
    """The config that a checkpoint of these tensors is loaded with."""
    write_checkpoint(path, build_model(variant))
    write_tensors(path, tensors)
    weights, config = open_weights(path, torch.float32)
    with weights:
        return config


def test_harmless_buffers_and_missing_prefix_are_accepted(tmp_path: Path) -> None:
    """Rotary tables and masks that older code saved are ignored; names may come without `transformer.`."""
    tensors = {name.removeprefix("transformer."): tensor.clone() for name, tensor in state("7b-odd").items()}
    for name in ("rotary.inv_freq", "maybe_rotary.inv_freq", "rotary_emb.inv_freq", "bias", "masked_bias"):
        tensors[f"h.0.self_attention.{name}"] = torch.zeros(4)
    tensors["rotary_emb.inv_freq"] = torch.zeros(4)
    opened(tmp_path, tensors, "7b-odd")


@pytest.mark.parametrize("absent", [[], ["lm_head.weight"], ["transformer.word_embeddings.weight"]])
def test_a_tied_table_may_have_either_name(absent: list[str], tmp_path: Path) -> None:
    """A tied checkpoint may hold the table, the head, or both."""
    tensors = {name: tensor.clone() for name, tensor in state("7b").items() if name not in absent}
    assert opened(tmp_path, tensors, "7b").is_tied


@pytest.mark.parametrize(("variant", "num_layer_norms"), [("11b", 1), ("40b", 2)])
def test_the_weights_decide_how_many_layer_norms(variant: str, num_layer_norms: int, tmp_path: Path) -> None:
    """The new architecture has one LayerNorm or two, as the checkpoint has, whatever config.json assumes."""
    write_checkpoint(tmp_path, build_model(variant))
    config = falcon_config(tmp_path)
    for assumed in (1, 2):
        weights, found = open_weights(tmp_path, torch.float32, config=replace(config, num_layer_norms=assumed))
        with weights:
            assert found == replace(config, num_layer_norms=num_layer_norms)
