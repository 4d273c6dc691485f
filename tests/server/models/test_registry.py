"""Model families by model_type, and one that tests bring along, served end to end."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.registry import load_config
from plugins import plugin_environment
from serving import ServerProcess, write_byte_tokenizer

VOCABULARY = 256


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The toy family, whose weight makes each byte follow the one before it in the alphabet."""
    path = tmp_path_factory.mktemp("toy")
    config = {"model_type": "toy", "vocab_size": VOCABULARY, "max_position_embeddings": 512, "eos_token_id": 255}
    (path / "config.json").write_text(json.dumps(config))
    save_file({"linear.weight": 9 * torch.eye(VOCABULARY).roll(1, 0)}, path / "model.safetensors")
    environment = plugin_environment(path / "site", "peregrine.model_families", "toy", "toy_family:FAMILY")
    options = ("--model-id", str(write_byte_tokenizer(path)), "--dtype", "float32", "--speculate", "4")
    with ServerProcess(*options, env=environment) as server:
        yield server


@pytest.mark.slow
def test_a_family_of_one_file_is_served(server: ServerProcess) -> None:
    """It generates over HTTP what its one linear says."""
    assert server.generate("abc", max_new_tokens=5).json()["generated_text"] == "defgh"


@pytest.mark.slow
def test_prefixes_are_not_shared_where_the_family_cannot(server: ServerProcess) -> None:
    """The same long prompt twice finds nothing in the cache."""
    for _ in range(2):
        answer = server.generate("a" * 200, max_new_tokens=1, details=True).json()
        assert answer["details"]["cached_tokens"] == 0


@pytest.mark.slow
def test_sequences_of_one_prompt_are_computed_apart_where_the_family_cannot_fork(server: ServerProcess) -> None:
    """best_of works without forks."""
    answer = server.generate("abc", max_new_tokens=3, best_of=2, do_sample=True, temperature=0.1, details=True).json()
    assert answer["generated_text"] == "def"
    assert [each["generated_text"] for each in answer["details"]["best_of_sequences"]] == ["def"]


def test_an_unknown_family_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    """Where no package offers the model_type, one line names it and the models that are served."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toy"}))
    with pytest.raises(UnsupportedModel, match=r"config\.json: model_type 'toy' is not supported; supported are "):
        load_config(tmp_path)
