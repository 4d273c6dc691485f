"""Positions, against transformers' own functions."""

import pytest
import torch
from transformers.models.falcon.modeling_falcon import FalconRotaryEmbedding, build_alibi_tensor

from checkpoints import build_model, config_json
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.layers.positions import DynamicRotaryPositions, RotaryPositions, alibi_slopes
from peregrine_server.models.loading.slices import Run, Slice, whole

CPU = torch.device("cpu")


@pytest.mark.parametrize("num_heads", [1, 2, 3, 7, 8, 12, 31, 32, 64, 71, 128, 232])
def test_alibi_slopes_are_those_of_transformers(num_heads: int) -> None:
    """For any number of heads the slopes are transformers', to the bit, its rounding to bfloat16 included."""
    slopes = alibi_slopes(num_heads, whole(num_heads), CPU)
    second_position = build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), num_heads, torch.float32)[:, 0, 1]
    assert torch.equal(slopes, second_position)


def test_alibi_slopes_of_a_rank() -> None:
    """A rank has its own heads' slopes, and 0 for heads that are padding."""
    everything = alibi_slopes(6, whole(6), CPU)
    assert torch.equal(alibi_slopes(6, Slice(3, (Run(4, 0, 2),)), CPU), torch.cat((everything[4:], torch.zeros(1))))


@pytest.mark.parametrize("variant", ["7b", "11b", "7b-odd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_tables_are_those_of_transformers(variant: str, dtype: torch.dtype) -> None:
    """cos and sin equal transformers' to the bit, far beyond the length the model was trained for."""
    hf = build_model(variant).config
    positions = torch.tensor([0, 1, 2047, 2048, 8192, 100_000])
    expected = FalconRotaryEmbedding(hf)(torch.empty(0, dtype=dtype), positions[None])
    config = FalconConfig.from_hf(config_json(hf))
    rotary = RotaryPositions.of(config.head_dim, config.rope_theta, config.rope_factor, dtype, CPU)
    found = rotary(positions)
    assert all(torch.equal(table[:, 0], other[0]) for table, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("factor", [2.0, 1.3])
@pytest.mark.parametrize("variant", ["7b", "11b"])
def test_dynamic_rotary_tables_are_those_of_transformers(variant: str, factor: float) -> None:
    """A token generated at any position is rotated as transformers rotates it in a call that ends there."""
    rope = {"rope_type": "dynamic", "factor": factor, "rope_theta": 10000.0}
    hf = build_model(variant, rope_parameters=rope, max_position_embeddings=64).config
    config = FalconConfig.from_hf(config_json(hf))
    theirs, x = FalconRotaryEmbedding(hf), torch.empty(0)
    scaling = config.head_dim, config.rope_theta, config.rope_factor, config.max_positions
    positions = torch.tensor([0, 1, 62, 63, 64, 65, 100, 1000])
    found = DynamicRotaryPositions.of(*scaling, torch.float32, CPU)(positions)
    for row, position in enumerate(positions):
        expected = theirs(x, position[None, None])
        for table, other in zip(found, expected, strict=True):
            torch.testing.assert_close(table[row], other[0], rtol=0, atol=1e-4)
