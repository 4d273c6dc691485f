"""GGUF files as checkpoints."""

from pathlib import Path

import gguf
import pytest
import torch
from torch import Tensor

from gguf_checkpoints import MIXES, mix, write_gguf
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.gguf import FalconGguf, hf_config
from peregrine_server.models.loading.checkpoint import open_checkpoint
from peregrine_server.models.loading.gguf_file import GgufFile
from peregrine_server.models.loading.gguf_header import read_header
from peregrine_server.models.loading.tensor_file import CheckpointError


def opened(path: Path) -> GgufFile:
    return GgufFile(path, FalconGguf(FalconConfig.from_hf(hf_config([read_header(path)]))))


def region(file: GgufFile, name: str, row: int, column: int, height: int, width: int) -> Tensor:
    """The float32 values that are read of a tensor."""
    out = torch.full((height, width), torch.nan)
    file.copy(name, row, column, out)
    return out


@pytest.mark.parametrize("types", [mix(others="Q5_K"), MIXES["Q8_0"], MIXES["F16"]])
def test_a_region_is_that_of_the_published_tensor(types: object, tmp_path: Path) -> None:
    """With its rows in their order, wherever the region cuts blocks and KV groups."""
    path = tmp_path / "falcon.gguf"
    model = write_gguf(path, "40b", types)  # type: ignore[arg-type]
    file = opened(path)
    for name in "h.0.self_attention.query_key_value.weight", "word_embeddings.weight":
        whole = model.state_dict()[f"transformer.{name}"]
        assert file.tensors[name].shape == tuple(whole.shape)
        for row, column, height, width in (0, 0, *whole.shape), (3, 7, 290, 100), (65, 250, 70, 6), (31, 32, 1, 32):
            found = region(file, name, row, column, height, width)
            torch.testing.assert_close(found, whole[row : row + height, column : column + width], atol=0, rtol=0)
    file.close()


def test_a_vector_is_one_column(tmp_path: Path) -> None:
    """A part of it can be read."""
    model = write_gguf(tmp_path / "falcon.gguf", "40b")
    file = opened(tmp_path / "falcon.gguf")
    expected = model.state_dict()["transformer.h.0.ln_attn.bias"]
    assert torch.equal(region(file, "h.0.ln_attn.bias", 5, 0, 20, 1)[:, 0], expected[5:25])
    file.close()


def test_a_quantized_vector_is_refused(tmp_path: Path) -> None:
    """By name: no Falcon has one."""
    path = tmp_path / "falcon.gguf"
    write_gguf(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.bias") + len(b"output_norm.bias") + 4 + 8
    content[at : at + 4] = gguf.GGMLQuantizationType.Q8_0.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tensor 'output_norm.bias' is a vector of Q8_0, which is not read$"):
        opened(path)


def test_gguf_files_need_a_family_that_knows_them(tmp_path: Path) -> None:
    """Another family's are refused by name."""
    write_gguf(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match="is a GGUF file, which is not read for models of this kind"):
        open_checkpoint(tmp_path)
