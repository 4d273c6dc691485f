"""The tensors that a Falcon's checkpoint must and may hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from checkpoints import build_model, write_checkpoint, write_tensors
from falcons import falcon_config, open_weights
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.tensors import EMBEDDING, HEAD, expected_tensors
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.loading.slices import whole
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import PIECE_BYTES


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
    assert {name: spec.shape for name, spec in expected_tensors(config, DenseFormat()).items()} == names


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


def test_a_head_unlike_the_table_is_kept(tmp_path: Path) -> None:
    """A head of its own counts whatever `tie_word_embeddings` says, as in transformers; one row is enough."""
    tensors = {name: tensor.clone() for name, tensor in state("7b").items()}
    tensors["lm_head.weight"][-1] += 1
    assert not opened(tmp_path, tensors, "7b").is_tied
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path)
    with open_weights(tmp_path, torch.float32)[0] as weights:
        assert torch.equal(weights.rows((HEAD, whole(300))), oracle.lm_head.weight)
        table = oracle.state_dict()["transformer.word_embeddings.weight"]
        assert torch.equal(weights.rows((EMBEDDING, whole(300))), table)


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_a_large_head_is_compared_in_pieces(file_format: str, tmp_path: Path) -> None:
    """A table of several pieces and its head differ in the last row only."""
    model = build_model("7b", vocab_size=3 * PIECE_BYTES // (4 * 112) + 5)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for change, is_tied in ((0, True), (1, False)):
        tensors["lm_head.weight"][-1] += change
        write_checkpoint(tmp_path, model)
        (tmp_path / "model.safetensors").unlink()
        write_tensors(tmp_path, tensors, file_format)
        weights, config = open_weights(tmp_path, torch.float32)
        with weights:
            assert config.is_tied == is_tied


def test_a_head_of_another_shape_is_named(tmp_path: Path) -> None:
    """A head of fewer rows than the vocabulary is no copy of the table, and refused as transformers refuses it."""
    tensors = {name: tensor.clone() for name, tensor in state("7b").items()}
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
    with pytest.raises(CheckpointError, match=r"lm_head.weight has shape \[299, 112\], not \[300, 112\]"):
        opened(tmp_path, tensors, "7b")


def test_a_value_head_is_left_out(tmp_path: Path) -> None:
    """TRL's value head beside the weights generates nothing."""
    tensors = {name: tensor.clone() for name, tensor in state("7b-odd").items()}
    tensors |= {"v_head.summary.weight": torch.zeros(1, 56), "v_head.summary.bias": torch.zeros(1)}
    opened(tmp_path, tensors, "7b-odd")


@pytest.mark.parametrize(("variant", "num_layer_norms"), [("11b", 1), ("40b", 2)])
def test_the_weights_decide_how_many_layer_norms(variant: str, num_layer_norms: int, tmp_path: Path) -> None:
    """The new architecture has one LayerNorm or two, as the checkpoint has, whatever config.json assumes."""
    write_checkpoint(tmp_path, build_model(variant))
    config = falcon_config(tmp_path)
    for assumed in (1, 2):
        weights, found = open_weights(tmp_path, torch.float32, config=replace(config, num_layer_norms=assumed))
        with weights:
            assert found == replace(config, num_layer_norms=num_layer_norms)
