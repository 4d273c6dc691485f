"""The models that are known by name."""

import pytest

from checkpoints import PUBLISHED as PUBLISHED_FILES
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.published import PUBLISHED


@pytest.mark.parametrize("model", PUBLISHED_FILES)
def test_a_known_shape_is_that_of_the_published_file(model: str) -> None:
    """The keys that are kept decide the shape as the whole config.json does."""
    assert FalconConfig.from_hf(PUBLISHED[f"tiiuae/{model}"]) == FalconConfig.from_hf(PUBLISHED_FILES[model])


def test_rw_7b_is_the_larger_of_its_kind() -> None:
    """64 heads of 64 elements, each with its own K and V, in 36 sequential layers."""
    config = FalconConfig.from_hf(PUBLISHED["tiiuae/falcon-rw-7b"])
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim) == (36, 64, 64, 64)
    assert config.has_alibi
    assert not config.is_parallel


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.endswith(("-instruct", "-chat"))])
def test_a_tuned_model_has_its_base_models_shape(name: str) -> None:
    """Instruct and chat models differ in their weights alone."""
    assert PUBLISHED[name] == PUBLISHED[name.removesuffix("-instruct").removesuffix("-chat")]
